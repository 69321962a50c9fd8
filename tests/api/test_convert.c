/* Conversion through the public header: the mixes tensor by tensor, a tensor that cannot be written,
 * stopping, and every allocation that fails. */
#include "support/gguf_same.h"

#include "api/convert_mix.h"
#include "base/alloc.h"

#include <keyhole/convert.h>
#include <math.h>
#include <unistd.h>

static char folder[64], source[128], target[128];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/test_convert_XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(source, sizeof source, "%s/source.gguf", folder);
    snprintf(target, sizeof target, "%s/target.gguf", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command) == 0 ? 0 : -1;
}

/* What a mix gives to a tensor of a model of 32 layers, 32 heads over 8. */
typedef struct row {
    const char *mix, *tensor;
    uint64_t width, rows;
    kh_type type;
} row;

static const row table[] = {
    {"Q4_K_M", "output.weight", 4096, 32000, KH_TYPE_Q6_K},
    {"Q4_K_M", "token_embd.weight", 4096, 32000, KH_TYPE_Q4_K},
    {"Q4_K_M", "blk.0.attn_norm.weight", 4096, 1, KH_TYPE_F32},
    {"Q4_K_M", "blk.0.attn_q.bias", 4096, 1, KH_TYPE_F32},
    {"Q4_K_M", "blk.0.ffn_gate_inp.weight", 4096, 8, KH_TYPE_F32},
    {"Q4_K_M", "blk.0.attn_q.weight", 4096, 4096, KH_TYPE_Q4_K},
    {"Q4_K_M", "blk.0.attn_v.weight", 4096, 1024, KH_TYPE_Q6_K},
    {"Q4_K_M", "blk.0.ffn_down.weight", 14336, 4096, KH_TYPE_Q6_K},
    {"Q4_K_M", "blk.4.ffn_down.weight", 14336, 4096, KH_TYPE_Q4_K},
    {"Q4_K_M", "blk.6.ffn_down.weight", 14336, 4096, KH_TYPE_Q6_K},
    {"Q4_K_M", "blk.31.ffn_down.weight", 14336, 4096, KH_TYPE_Q6_K},
    {"Q4_K_M", "blk.0.attn_q.weight", 576, 576, KH_TYPE_Q5_0},
    {"Q5_K_M", "blk.0.attn_q.weight", 576, 576, KH_TYPE_Q5_1},
    {"Q6_K", "blk.0.attn_q.weight", 576, 576, KH_TYPE_Q8_0},
    {"Q4_K_M", "output.weight", 576, 32000, KH_TYPE_Q8_0},
    {"Q4_K_M", "blk.0.attn_q.weight", 100, 576, KH_TYPE_F16},
    {"Q4_K_S", "blk.0.attn_v.weight", 4096, 1024, KH_TYPE_Q5_K},
    {"Q4_K_S", "blk.3.ffn_down.weight", 14336, 4096, KH_TYPE_Q5_K},
    {"Q4_K_S", "blk.4.ffn_down.weight", 14336, 4096, KH_TYPE_Q4_K},
    {"Q4_K_M", "blk.10.attn_v.weight", 4096, 1024, KH_TYPE_Q4_K},
    {"Q5_K_M", "blk.0.attn_v.weight", 4096, 1024, KH_TYPE_Q6_K},
    {"Q5_K_S", "blk.0.attn_v.weight", 4096, 1024, KH_TYPE_Q5_K},
    {"Q3_K_M", "blk.0.attn_v.weight", 4096, 1024, KH_TYPE_Q5_K},
    {"Q3_K_M", "blk.0.attn_output.weight", 4096, 4096, KH_TYPE_Q4_K},
    {"Q3_K_M", "blk.9.ffn_down.weight", 14336, 4096, KH_TYPE_Q4_K},
    {"Q3_K_L", "blk.9.ffn_down.weight", 14336, 4096, KH_TYPE_Q5_K},
    {"Q3_K_S", "blk.9.ffn_down.weight", 14336, 4096, KH_TYPE_Q3_K},
    {"Q2_K", "blk.0.attn_v.weight", 4096, 1024, KH_TYPE_Q4_K},
    {"Q2_K", "blk.9.ffn_down.weight", 14336, 4096, KH_TYPE_Q3_K},
    {"Q2_K_S", "blk.0.ffn_down.weight", 14336, 4096, KH_TYPE_Q4_K},
    {"Q4_0", "output.weight", 4096, 32000, KH_TYPE_Q6_K},
    {"Q4_0", "blk.0.attn_v.weight", 4096, 1024, KH_TYPE_Q4_0},
    {"Q8_0", "output.weight", 4096, 32000, KH_TYPE_Q8_0},
    {"F16", "output.weight", 4096, 32000, KH_TYPE_F16},
    {"BF16", "blk.0.ffn_norm.weight", 4096, 1, KH_TYPE_F32},
};

static void mixes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const row *r = &table[i];
        kh_mix_model model = {.layers = 32, .heads = 32, .key_heads = 8};
        kh_tensor t = {.name = r->tensor, .dims = {r->width, r->rows, 1, 1}};
        kh_mix_choice choice = kh_mix_choose(kh_mix_find(r->mix), &model, &t, 0);
        if (choice.type != r->type)
            fail_msg("%s, %s of width %d: %s", r->mix, r->tensor, (int)r->width,
                     kh_type_name(choice.type));
        assert_int_equal(choice.unfit, r->width % 256 != 0 && r->type != KH_TYPE_F32 &&
                                           !(r->width == 576 && strstr(r->tensor, "output")));
    }
    kh_mix_model experts = {.layers = 32, .heads = 32, .key_heads = 8, .experts = 8};
    kh_tensor t = {.name = "blk.0.attn_v.weight", .dims = {4096, 1024, 1, 1}};
    assert_int_equal(kh_mix_choose(kh_mix_find("Q4_K"), &experts, &t, 0).type, KH_TYPE_Q8_0);
    assert_int_equal(kh_mix_choose(kh_mix_find("Q4_K"), &experts, &t, 1).type, KH_TYPE_Q4_K);
    kh_mix_model tied = {.layers = 32, .tied = 1};
    t = (kh_tensor){.name = "token_embd.weight", .dims = {4096, 1024, 1, 1}};
    assert_int_equal(kh_mix_choose(kh_mix_find("Q4_K"), &tied, &t, 0).type, KH_TYPE_Q6_K);
    assert_null(kh_mix_find("Q9_K"));
    for (size_t i = 0; i < kh_convert_type_count(); i++)
        assert_ptr_equal(kh_mix_find(kh_convert_type_at(i)), kh_mix_at(i));
    assert_null(kh_convert_type_at(kh_convert_type_count()));
}

enum { ROWS = 40, COLS = 256 };

static void make_source(float bad)
{
    static float x[ROWS * COLS];
    kh_gguf *file;
    for (int i = 0; i < ROWS * COLS; i++) x[i] = sinf((float)i);
    x[33 * COLS + 7] = bad;
    GOOD(kh_gguf_new(&file, "made"));
    GOOD(kh_gguf_set_string(file, "general.architecture", (kh_slice){"llama", 5}));
    GOOD(kh_gguf_set_u64(file, "general.file_type", KH_GGUF_U32, 0));
    GOOD(kh_gguf_set_u64(file, "general.alignment", KH_GGUF_U32, 64));
    GOOD(kh_gguf_set_u64(file, "llama.block_count", KH_GGUF_U32, 1));
    GOOD(kh_gguf_add_tensor(file, "output_norm.weight", KH_TYPE_F32, 1, (uint64_t[]){COLS}, x));
    GOOD(kh_gguf_add_tensor(file, "blk.0.attn_q.weight", KH_TYPE_F32, 2, (uint64_t[]){COLS, ROWS},
                            x));
    GOOD(kh_gguf_write(file, source));
    kh_gguf_close(file);
}

static void values_and_types(void **state)
{
    (void)state;
    kh_gguf *a, *b;
    uint64_t n = 0;
    kh_convert_options options = {.type = "q6_k", .threads = 2};
    kh_convert_result result;
    make_source(0);
    GOOD(kh_convert(source, target, &options, &result));
    GOOD(kh_gguf_open(&a, source));
    GOOD(kh_gguf_open(&b, target));
    assert_true(kh_gguf_u64(b, "general.file_type", &n, 100) == KH_OK && n == 18);
    assert_true(kh_gguf_u64(b, "general.quantization_version", &n, 100) == KH_OK && n == 2);
    assert_true(kh_gguf_u64(b, "llama.block_count", &n, 100) == KH_OK && n == 1);
    assert_null(kh_gguf_find(b, "general.alignment"));
    const kh_tensor *norm = kh_gguf_tensor(b, "output_norm.weight");
    assert_memory_equal(norm->data, kh_gguf_tensor(a, norm->name)->data, norm->size);
    assert_int_equal(kh_gguf_tensor(b, "blk.0.attn_q.weight")->type, KH_TYPE_Q6_K);
    assert_int_equal(result.tensors, 2);
    assert_int_equal(result.copied, 1);
    assert_int_equal(result.parameters, COLS * (ROWS + 1));
    assert_int_equal(result.bytes_out, COLS * 4 + ROWS * 210);
    assert_int_equal(result.type_count, 2);
    kh_gguf_close(b);
    kh_gguf_close(a);
    refused(kh_convert(source, target, &options, NULL), KH_ERR_STATE, target, "exists");
    refused(kh_convert(source, target, &(kh_convert_options){.type = "Q9"}, NULL), KH_ERR_ARGUMENT,
            "Q9", "Q4_K_M");
    GOOD(kh_convert(source, target, &(kh_convert_options){.overwrite = 1}, NULL));
    GOOD(kh_gguf_open(&b, target));
    assert_int_equal(kh_gguf_tensor(b, "blk.0.attn_q.weight")->type, KH_TYPE_F16);
    kh_gguf_close(b);
    unlink(target);
    make_source(NAN);
    refused(kh_convert(source, target, &options, NULL), KH_ERR_FORMAT,
            "source.gguf: tensor 'blk.0.attn_q.weight': row 33, element 7", "nan");
    assert_int_not_equal(access(target, F_OK), 0);
}

static int stop(void *context, const char *stage, size_t done, size_t all)
{
    (void)stage;
    assert_true(done <= all);
    return ++*(int *)context == 2;
}

static void stopping(void **state)
{
    (void)state;
    int calls = 0;
    make_source(0);
    kh_convert_options options = {.progress = stop, .progress_context = &calls};
    assert_int_equal(kh_convert(source, target, &options, NULL), KH_ERR_STOPPED);
    assert_int_equal(calls, 2);
    assert_int_not_equal(access(target, F_OK), 0);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    kh_convert_options options = {.type = "Q4_K_M", .threads = 2};
    make_source(0);
    GOOD(kh_convert(source, target, &options, NULL)); /* what libraries keep is taken now */
    unlink(target);
    uint64_t live = kh_alloc_get_stats().live, failures = 0;
    for (uint64_t n = 1;; n++) {
        kh_alloc_fail_at(n);
        kh_status status = kh_convert(source, target, &options, NULL);
        kh_alloc_fail_at(0);
        assert_int_equal(kh_alloc_get_stats().live, live);
        if (status == KH_OK) break;
        assert_int_equal(status, KH_ERR_MEMORY);
        assert_int_not_equal(access(target, F_OK), 0);
        failures++;
    }
    assert_true(failures > 20);
}

/* A folder with its tokenizer: thousands of allocations, so not each of them. */
static void folders_and_faults(void **state)
{
    (void)state;
    char path[512];
    const char *root = getenv("KH_TEST_DATA");
    kh_convert_options options = {.type = "F32", .overwrite = 1};
    snprintf(path, sizeof path, "%s/families/qwen2", root ? root : "tests/golden");
    GOOD(kh_convert(path, target, &options, NULL));
    unlink(target);
    uint64_t live = kh_alloc_get_stats().live, failures = 0;
    for (uint64_t n = 1;; n += n / 16 + 1) {
        kh_alloc_fail_at(n);
        kh_status status = kh_convert(path, target, &options, NULL);
        kh_alloc_fail_at(0);
        if (kh_alloc_get_stats().live != live) fail_msg("allocation %d leaks", (int)n);
        if (status == KH_OK) break;
        assert_int_equal(status, KH_ERR_MEMORY);
        assert_int_not_equal(access(target, F_OK), 0);
        failures++;
    }
    assert_true(failures > 40);
    unlink(target);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mixes),
        cmocka_unit_test(values_and_types),
        cmocka_unit_test(stopping),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(folders_and_faults),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

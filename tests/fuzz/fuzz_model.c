/* Fuzz target of opening and running a model.
 *
 *     input   | fill | GGUF header ... [tensor data]           file   | the input | 256 KiB of fill |
 *
 * An input is a header with a byte in front; what its tensors hold is made up behind it, so that a seed
 * is 5 KB of numbers that matter: zeros, ones (NaN in every float type), noise, or noise with small
 * exponents. Whatever opens must read, answer with ids that exist, and give everything back. */
#include "base/alloc.h"

#include <keyhole/keyhole.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILL_BYTES = 256 << 10, TOKENS = 6, LONGEST = 1 << 22, VERIFY = 0x40, FORM = 3 };
#define PASS(call)                                                                                 \
    do {                                                                                           \
        kh_status pass_status = (call);                                                            \
        if (pass_status != KH_OK) return pass_status;                                              \
    } while (0)

enum form { ZEROS, ONES, NOISE, TAME };

static volatile uint64_t sink;

static void must(int good)
{
    if (!good) abort();
}

static const uint8_t *fill_of(uint8_t seed)
{
    static uint8_t bytes[FILL_BYTES];
    static int made = -1;
    if (made == seed) return bytes;
    made = seed;
    enum form form = (enum form)(seed & FORM);
    uint32_t x = 2463534242u + seed;
    memset(bytes, form == ONES ? 0xff : 0, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes && form >= NOISE; i++) {
        x ^= x << 13, x ^= x >> 17, x ^= x << 5;
        bytes[i] = (uint8_t)(x >> 11);
        /* the high byte of an f16 (below 1) and of an f32 */
        if (form == TAME && i % 2) bytes[i] = (uint8_t)((bytes[i] & 0x83) | 0x28);
        if (form == TAME && i % 4 == 3) bytes[i] |= 0x38;
    }
    return bytes;
}

static void write_file(int fd, const uint8_t *data, size_t size)
{
    must(ftruncate(fd, 0) == 0 && pwrite(fd, data + 1, size - 1, 0) == (ssize_t)size - 1);
    must(pwrite(fd, fill_of(data[0]), FILL_BYTES, (off_t)size - 1) == FILL_BYTES);
}

static kh_status check_token(void *context, const char *text, size_t size, const kh_choice *chosen,
                             const kh_choice *alternatives, size_t count)
{
    int32_t V = *(const int32_t *)context;
    for (size_t i = 0; i < size; i++) sink += (unsigned char)text[i];
    must(!chosen || (chosen->id >= 0 && chosen->id < V));
    for (size_t i = 0; i < count; i++) must(alternatives[i].id >= 0 && alternatives[i].id < V);
    return KH_OK;
}

static void some_ids(const kh_model *model, int32_t ids[TOKENS])
{
    int32_t V = kh_model_get_info(model)->vocabulary, *text = NULL;
    size_t n = 0;
    if (kh_model_tokenize(model, "Key, hole: 42!\n", 15, KH_TEXT_EDGES, &text, &n) != KH_OK) n = 0;
    for (size_t i = 0; i < n; i++) must(text[i] >= 0 && text[i] < V);
    for (size_t i = 0; i < TOKENS; i++) ids[i] = i < n ? text[i] : (int32_t)(i * 7) % V;
    kh_free_ids(text);
}

static kh_status sum_rows(void *context, size_t text, const float *rows)
{
    sink += (uint64_t)(rows[0] > 0) + text;
    return context ? KH_OK : KH_ERR_STOPPED;
}

/* Two texts in one pass, and what a head makes of the first. */
static void encode(const kh_model *model, const char *attn, kh_precision precision)
{
    int32_t ids[TOKENS], types[TOKENS] = {0, 0, 1};
    size_t V = (size_t)kh_model_get_info(model)->vocabulary, at[2] = {1, 3};
    some_ids(model, ids);
    kh_encoder_options o = {.attn = attn, .threads = 1, .precision = precision};
    kh_encoder_text texts[2] = {{ids, NULL, TOKENS}, {ids + 1, types, 3}};
    kh_encoder *encoder = NULL;
    kh_status status = kh_encoder_open(&encoder, model, &o);
    must((status == KH_OK) == (encoder != NULL));
    if (status == KH_OK) status = kh_encoder_run(encoder, texts, 2, sum_rows, texts);
    if (status == KH_OK) {
        float start[TOKENS], end[TOKENS], *logits = malloc(2 * V * sizeof *logits);
        must(logits != NULL);
        status = kh_encoder_masked(encoder, logits, texts, at, 2);
        must(status == KH_OK || kh_last_error()[0]);
        status = kh_encoder_spans(encoder, start, end, texts);
        free(logits);
    }
    must(status == KH_OK || kh_last_error()[0]);
    kh_encoder_close(encoder);
}

static kh_status read_ids(kh_session *session, const kh_model *model)
{
    int32_t ids[TOKENS];
    some_ids(model, ids);
    if (kh_model_get_kind(model) == KH_MODEL_ENCODER_DECODER) {
        PASS(kh_session_source(session, ids, TOKENS));
        ids[0] = kh_model_start(model);
    }
    PASS(kh_session_read(session, ids, TOKENS - 1, NULL));
    return kh_session_read(session, ids + TOKENS - 1, 1, NULL);
}

static void run(const kh_model *model, const char *attn, kh_precision precision,
                kh_cache_type cache)
{
    const kh_model_info *info = kh_model_get_info(model);
    int32_t V = info->vocabulary;
    if (kh_model_get_kind(model) != KH_MODEL_DECODER) encode(model, attn, precision);
    if (kh_model_get_kind(model) == KH_MODEL_ENCODER) return;
    kh_session_options so = {.attn = attn,
                             .threads = 1,
                             .precision = precision,
                             .k_type = cache,
                             .v_type = cache,
                             .stats = 1};
    if (info->context > LONGEST) so.context = LONGEST;
    kh_session *session = NULL;
    kh_status status = kh_session_open(&session, model, &so);
    must((status == KH_OK) == (session != NULL));
    if (status == KH_OK) status = read_ids(session, model);
    if (status == KH_OK) {
        kh_generate_result made;
        kh_generate_options g = {.sampler = kh_sampler_defaults(),
                                 .max_tokens = 2,
                                 .ignore_end = 1,
                                 .top_logprobs = 3,
                                 .token = check_token,
                                 .context = &V};
        must(kh_session_logits(session) != NULL);
        status = kh_generate(session, &g, &made);
    }
    must(status == KH_OK || kh_last_error()[0]);
    kh_session_close(session);
}

static void look(const kh_model *model)
{
    char key[64], value[96], piece[32];
    for (size_t i = 0; i < kh_model_metadata_count(model); i++)
        must(kh_model_metadata(model, i, key, sizeof key, value, sizeof value) == KH_OK);
    kh_tensor_info tensor;
    for (size_t i = 0; i < kh_model_tensor_count(model); i++)
        must(kh_model_tensor(model, i, &tensor) == KH_OK);
    for (int32_t id = -1; id < 40; id++)
        sink += kh_model_piece(model, id, piece, sizeof piece) + (size_t)kh_model_ends(model, id);
    sink += (uint64_t)kh_model_bos(model) + strlen(kh_model_chat_format(model));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (size < 2 || fd < 0) return 0;
    write_file(fd, data, size);
    uint64_t live = kh_alloc_get_stats().live;
    kh_model *model = NULL;
    kh_status status = kh_model_open(&model, path);
    must((status == KH_OK) == (model != NULL));
    must(status == KH_OK || kh_last_error()[0]);
    if (model) {
        look(model);
        run(model, "full", KH_PRECISION_DEFAULT, KH_CACHE_F16);
        run(model, "topk:k=2,tail=mean", KH_PRECISION_Q8, KH_CACHE_F16);
        run(model, "topk:k=3,recent=1,min-p=0.1", KH_PRECISION_DEFAULT, KH_CACHE_Q8_0);
        kh_verify_options o = {.session.threads = 1};
        if (data[0] & VERIFY) must(kh_verify(model, &o) == KH_OK || kh_last_error()[0]);
    }
    kh_model_close(model);
    must(kh_alloc_get_stats().live == live);
    return 0;
}

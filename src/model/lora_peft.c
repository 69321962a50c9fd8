/* PEFT's adapters: a folder of adapter_config.json and adapter_model.safetensors.
 *
 *     base_model.model.MODULE.lora_A.weight         [r][inputs]       MODULE: as the model's own folder
 *     base_model.model.MODULE.lora_B.weight         [outputs][r]      names it
 *     base_model.model.MODULE.lora_embedding_A      [r][V]            an embedding's: the row of an id is
 *     base_model.model.MODULE.lora_embedding_B      [D][r]            a column of A, times B
 *
 * The family's table turns MODULE into GGUF's name and says in which order GGUF has its rows; the same is
 * done to the rows of B, since rows of B A are sums of A's rows by those of B. Matrices that a folder stores
 * the other way (GPT-2, fan_in_fan_out) have ordinary A and B. Embeddings are turned: their rows, by id,
 * become rows of our B.
 *
 * scale = lora_alpha / r, or / sqrt(r) with use_rslora; rank_pattern and alpha_pattern give modules numbers
 * of their own, by regular expressions for the end of the name. r is what a tensor's shape says, and has to
 * be what the configuration says.
 *
 * Everything that computes something else is refused by name: magnitudes (DoRA), biases, whole modules,
 * replicated layers, activation tokens, initialisations that changed the base. A tensor that is no low-rank
 * part is refused too, so a kind that is younger than this file cannot be run half. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "model/hf_impl.h"
#include "model/lora_set.h"
#include "tokens/tok_regex.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_CONFIG = 16 << 20, NAME = 2 * KH_HF_NAME };

static const char outer[] = "base_model.model.";

typedef enum role { OTHER, A, B, EMBEDDING_A, EMBEDDING_B, BASE } role;
static const struct {
    const char *tail;
    role role;
} tails[] = {{".lora_A.weight", A},
             {".lora_B.weight", B},
             {".lora_A.default.weight", A}, /* with the name of the adapter */
             {".lora_B.default.weight", B},
             {".lora_embedding_A", EMBEDDING_A},
             {".lora_embedding_B", EMBEDDING_B},
             {".base_layer.weight", BASE}}; /* an adapted embedding, unchanged */

typedef struct reader {
    kh_lora_set *set;
    const kh_gguf *base;
    const kh_family *family;
    uint64_t H, E;
    char *weights, *config; /* paths */
    kh_safetensors *file;
    json_t *root;
    double r, alpha;
    int root_scale; /* alpha / sqrt(r) */
} reader;

/* ---- adapter_config.json ---- */

static kh_status number(const reader *p, const char *key, double initial, double *out)
{
    const json_t *value = kh_json_get(p->root, key);
    *out = initial;
    if (!value || (kh_json_number(value, out) && isfinite(*out))) return KH_OK;
    KH_FAIL(KH_ERR_FORMAT, "%s: %s: a finite number is expected, found %s", p->config, key,
            kh_json_kind(value));
}

/* null, false, {}, [], "" and "none" */
static int is_unset(const json_t *value)
{
    if (!value || json_is_false(value)) return 1;
    if (json_is_array(value)) return json_array_size(value) == 0;
    if (json_is_object(value)) return json_object_size(value) == 0;
    const char *text = json_string_value(value);
    return text && (!*text || strcmp(text, "none") == 0);
}

static kh_status refuse_kinds(const reader *p)
{
    static const struct {
        const char *key, *what;
    } kinds[] = {{"use_dora", "magnitudes (DoRA)"},
                 {"use_qalora", "grouped inputs (QALoRA)"},
                 {"use_bdlora", "block-diagonal parts"},
                 {"bias", "trained biases"},
                 {"lora_bias", "trained biases"},
                 {"modules_to_save", "modules that are replaced whole"},
                 {"trainable_token_indices", "single trained tokens"},
                 {"layer_replication", "replicated layers"},
                 {"target_parameters", "adapters of experts"},
                 {"arrow_config", "routing between adapters (Arrow)"},
                 {"kasa_config", "singular values (KaSA)"},
                 {"alora_invocation_tokens", "adapters that begin to work at certain tokens"}};
    static const char *const changed[] = {"pissa", "olora", "corda", "loftq", "lora_ga"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!is_unset(kh_json_get(p->root, kinds[i].key)))
            KH_FAIL(KH_ERR_UNSUPPORTED, "%s: %s: %s are not supported", p->config, kinds[i].key,
                    kinds[i].what);
    const char *start = json_string_value(kh_json_get(p->root, "init_lora_weights"));
    for (size_t i = 0; start && i < sizeof changed / sizeof *changed; i++)
        if (strncmp(start, changed[i], strlen(changed[i])) == 0)
            KH_FAIL(KH_ERR_UNSUPPORTED,
                    "%s: init_lora_weights: \"%.40s\" changed the weights of the base, which the "
                    "adapter does not hold; PEFT can convert it to one for the unchanged base",
                    p->config, start);
    return KH_OK;
}

static kh_status read_config(reader *p)
{
    if (access(p->config, F_OK) != 0)
        KH_FAIL(KH_ERR_NOT_FOUND,
                "%s: there is no such file; a PEFT adapter has adapter_config.json beside its "
                "weights",
                p->config);
    KH_TRY(kh_json_read(&p->root, p->config, MAX_CONFIG));
    if (!json_is_object(p->root))
        KH_FAIL(KH_ERR_FORMAT, "%s: an object is expected, found %s", p->config,
                kh_json_kind(p->root));
    const char *type = json_string_value(kh_json_get(p->root, "peft_type"));
    if (!type || strcmp(type, "LORA") != 0)
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: peft_type: \"LORA\" is expected, found \"%.40s\"",
                p->config, type ? type : "");
    KH_TRY(refuse_kinds(p));
    KH_TRY(number(p, "r", 8, &p->r));
    KH_TRY(number(p, "lora_alpha", 8, &p->alpha));
    p->root_scale = !is_unset(kh_json_get(p->root, "use_rslora"));
    return KH_OK;
}

/* A pattern of letters, digits and dots needs no regular expression: 1 or 0, -1 where it is none. */
static int describes_plainly(const char *pattern, const char *module)
{
    size_t n = strlen(pattern), m = strlen(module);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)pattern[i]) && !strchr("_.", pattern[i])) return -1;
    if (n > m || (n < m && module[m - n - 1] != '.')) return 0;
    for (size_t i = 0; i < n; i++)
        if (pattern[i] != '.' && pattern[i] != module[m - n + i]) return 0;
    return 1;
}

/* Does the pattern describe the end of the module's name, from a dot or its beginning? */
static kh_status describes(const reader *p, const char *pattern, const char *module, int *out)
{
    kh_buf text = {0};
    kh_regex *regex = NULL;
    kh_regex_scratch scratch = {0};
    kh_regex_span span = {1, 0};
    *out = describes_plainly(pattern, module);
    if (*out >= 0) return KH_OK;
    kh_status status = kh_buf_format(&text, "^(?:.*\\.)?(?:%s)$", pattern);
    if (status == KH_OK)
        status = kh_regex_open(&regex, (kh_slice){text.data, text.size}, KH_REGEX_PCRE, p->config);
    if (status == KH_OK)
        status = kh_regex_find(regex, &scratch, module, strlen(module), 0, 0, &span);
    *out = span.start <= span.end;
    kh_regex_scratch_free(&scratch);
    kh_regex_close(regex);
    kh_buf_free(&text);
    return status;
}

/* The number that rank_pattern or alpha_pattern has for a module; left alone where there is none. */
static kh_status by_pattern(const reader *p, const char *key, const char *module, double *out)
{
    json_t *patterns = kh_json_get(p->root, key), *value;
    const char *pattern;
    if (!patterns) return KH_OK;
    if (!json_is_object(patterns))
        KH_FAIL(KH_ERR_FORMAT, "%s: %s: an object is expected, found %s", p->config, key,
                kh_json_kind(patterns));
    json_object_foreach(patterns, pattern, value)
    {
        int found = 0;
        KH_TRY(describes(p, pattern, module, &found));
        if (!found) continue;
        if (!kh_json_number(value, out) || !isfinite(*out))
            KH_FAIL(KH_ERR_FORMAT, "%s: %s: a finite number is expected, found %s", p->config, key,
                    kh_json_kind(value));
        return KH_OK;
    }
    return KH_OK;
}

/* ---- names ---- */

/* The module that a tensor belongs to, and its part in the adapter. */
static role split(const char *name, char module[NAME])
{
    size_t skip = strncmp(name, outer, sizeof outer - 1) == 0 ? sizeof outer - 1 : 0;
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        size_t tail = strlen(tails[i].tail);
        if (n <= skip + tail || n - skip - tail >= NAME) continue;
        if (strcmp(name + n - tail, tails[i].tail) != 0) continue;
        snprintf(module, NAME, "%.*s", (int)(n - skip - tail), name + skip);
        return tails[i].role;
    }
    return OTHER;
}

/* The same tensor with `from` in its tail replaced, such as lora_B for lora_A. */
static const kh_st_tensor *partner(const reader *p, const char *name, const char *from,
                                   const char *to)
{
    char other[NAME + 64];
    const char *at = NULL;
    for (const char *next = strstr(name, from); next; next = strstr(next + 1, from)) at = next;
    if (!at) return NULL;
    snprintf(other, sizeof other, "%.*s%s%s", (int)(at - name), name, to, at + strlen(from));
    return kh_safetensors_find(p->file, other);
}

static kh_status find_row(const reader *p, const char *module, const kh_hf_tensor **row,
                          char tensor[KH_HF_NAME])
{
    uint64_t layer = 0;
    *row = NULL;
    for (const kh_hf_map *map = p->family->hf; map && !*row; map = map->next)
        *row = kh_hf_row_of_module(map, module, &layer);
    if (!*row)
        KH_FAIL(KH_ERR_FORMAT,
                "%s: %.200s: a %s model has no such module: the adapter was made for another model",
                p->weights, module, p->family->name);
    kh_hf_expand(tensor, (*row)->to, layer, 0, ".weight");
    if ((*row)->transform == KH_HF_STACK)
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: %.200s: adapters of experts are not supported", p->weights,
                module);
    return KH_OK;
}

/* ---- numbers ---- */

static kh_status check_matrix(const reader *p, const kh_st_tensor *t)
{
    if (t->n_dims != 2)
        KH_FAIL(KH_ERR_FORMAT, "%s: %.200s: a matrix is expected, found %d dimensions", p->weights,
                t->name, t->n_dims);
    if (kh_st_kernel_type(t->type) == KH_TYPE_NONE)
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: %.200s: F32, F16 or BF16 is expected, found %s",
                p->weights, t->name, kh_st_type_name(t->type));
    return KH_OK;
}

static kh_status to_f32(float *out, const kh_st_tensor *t)
{
    size_t n = (size_t)(t->dims[0] * t->dims[1]);
    kh_hf_to_f32(out, t->data, kh_st_kernel_type(t->type), n, 0);
    return kh_lora_finite(out, n, t->name);
}

/* B's rows, in the order of the base's rows in GGUF. */
static kh_status order_rows(const reader *p, kh_lora_part *part, kh_hf_transform how)
{
    size_t E = (size_t)p->E, H = (size_t)p->H, row = part->r * sizeof(float);
    float *b = kh_lora_b(part), *copy;
    if (how != KH_HF_PAIRS && how != KH_HF_BY_HEAD) return KH_OK;
    if (E == 0 || E % 2 || part->rows % E || H == 0 ||
        (how == KH_HF_BY_HEAD && part->rows % (3 * H)))
        KH_FAIL(KH_ERR_FORMAT, "%s: tensor %s: rows of %zu heads of an even width are expected",
                p->weights, part->tensor, H);
    KH_TRY(kh_new(&copy, part->rows, row, "an adapter"));
    memcpy(copy, b, part->rows * row);
    if (how == KH_HF_PAIRS)
        kh_hf_pair_rows(b, copy, part->rows / E, E / 2, row);
    else
        kh_hf_swap_blocks(b, copy, H, 3, part->rows / (3 * H) * row);
    kh_free(copy);
    return KH_OK;
}

static kh_status fill(const reader *p, kh_lora_part *part, const kh_st_tensor *a,
                      const kh_st_tensor *b, const kh_hf_tensor *row)
{
    KH_TRY(to_f32(kh_lora_a(part), a));
    KH_TRY(to_f32(kh_lora_b(part), b));
    return order_rows(p, part, row->transform);
}

/* Our A [r][D] is B [D][r] turned, our B [V][r] is A [r][V] turned. */
static kh_status fill_embedding(kh_lora_part *part, const kh_st_tensor *a, const kh_st_tensor *b)
{
    float *copy;
    KH_TRY(kh_new(&copy, (size_t)part->numbers, sizeof *copy, "an adapter"));
    kh_status status = to_f32(copy, a);
    if (status == KH_OK) kh_hf_transpose(kh_lora_b(part), copy, part->r, part->rows, sizeof *copy);
    if (status == KH_OK) status = to_f32(copy, b);
    if (status == KH_OK) kh_hf_transpose(kh_lora_a(part), copy, part->cols, part->r, sizeof *copy);
    kh_free(copy);
    return status;
}

/* ---- tensors ---- */

static kh_status check_embedding(const reader *p, const char *module, const char *tensor)
{
    if (strcmp(tensor, KH_LORA_EMBEDDING) == 0 && p->family->structure != KH_ENCODER_DECODER)
        return KH_OK;
    KH_FAIL(KH_ERR_UNSUPPORTED,
            "%s: %.200s: of embeddings, adapters of one stack's tokens are supported", p->weights,
            module);
}

static kh_status read_pair(reader *p, const char *module, const kh_st_tensor *a,
                           const kh_st_tensor *b, int embedding)
{
    const kh_hf_tensor *row;
    char tensor[KH_HF_NAME];
    double r = p->r, alpha = p->alpha;
    KH_TRY(check_matrix(p, a));
    KH_TRY(check_matrix(p, b));
    KH_TRY(find_row(p, module, &row, tensor));
    if (embedding) KH_TRY(check_embedding(p, module, tensor));
    KH_TRY(kh_lora_check(p->set, p->base, tensor, embedding ? a->dims[1] : b->dims[0],
                         embedding ? b->dims[0] : a->dims[1], a->dims[0], b->dims[1]));
    KH_TRY(by_pattern(p, "rank_pattern", module, &r));
    KH_TRY(by_pattern(p, "alpha_pattern", module, &alpha));
    if (r != (double)a->dims[0])
        KH_FAIL(KH_ERR_FORMAT, "%s: r = %g for %.200s, but its A has %llu rows", p->config, r,
                module, (unsigned long long)a->dims[0]);
    if (p->root_scale) alpha *= sqrt(r);
    KH_TRY(kh_lora_add(p->set, p->base, tensor, (size_t)a->dims[0], alpha, NULL, NULL));
    kh_lora_part *part = &p->set->parts[p->set->count - 1];
    return embedding ? fill_embedding(part, a, b) : fill(p, part, a, b, row);
}

static kh_status read_tensor(reader *p, const kh_st_tensor *t)
{
    static const struct {
        const char *from, *to;
    } pairs[] = {[A] = {".lora_A", ".lora_B"},
                 [B] = {".lora_B", ".lora_A"},
                 [EMBEDDING_A] = {".lora_embedding_A", ".lora_embedding_B"},
                 [EMBEDDING_B] = {".lora_embedding_B", ".lora_embedding_A"}};
    char module[NAME];
    role is = split(t->name, module);
    if (is == BASE) return KH_OK;
    if (is == OTHER)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "%s: %.200s: only low-rank parts are supported (lora_A, lora_B, lora_embedding_A, "
                "lora_embedding_B)",
                p->weights, t->name);
    const kh_st_tensor *other = partner(p, t->name, pairs[is].from, pairs[is].to);
    if (!other)
        KH_FAIL(KH_ERR_FORMAT, "%s: %.200s is there, but not its %s", p->weights, t->name,
                pairs[is].to + 1);
    if (is == B || is == EMBEDDING_B) return KH_OK;
    return read_pair(p, module, t, other, is == EMBEDDING_A);
}

/* ---- the adapter ---- */

static kh_status name_files(reader *p)
{
    kh_buf config = {0}, weights = {0};
    char *folder = NULL;
    size_t n = strlen(p->set->path);
    KH_TRY(kh_hf_folder_of(&folder, p->set->path));
    kh_status status = kh_buf_format(&config, "%sadapter_config.json", folder);
    int named = n > 12 && strcmp(p->set->path + n - 12, ".safetensors") == 0;
    if (status == KH_OK)
        status = named ? kh_buf_text(&weights, p->set->path)
                       : kh_buf_format(&weights, "%sadapter_model.safetensors", folder);
    p->config = config.data;
    p->weights = weights.data;
    kh_free(folder);
    return status;
}

static kh_status find_family(reader *p)
{
    kh_slice arch = {"", 0};
    kh_description d;
    KH_TRY(kh_gguf_opt_string(p->base, "general.architecture", &arch));
    p->family = kh_family_find(arch.data, arch.size);
    if (!p->family || !p->family->hf)
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: PEFT adapters of the architecture \"%.*s\" are not read",
                kh_gguf_path(p->base), (int)(arch.size < 40 ? arch.size : 40), arch.data);
    KH_TRY(kh_describe(&d, p->family, p->base));
    p->H = (uint64_t)d.H;
    p->E = (uint64_t)d.E;
    return KH_OK;
}

static kh_status read_all(reader *p)
{
    KH_TRY(name_files(p));
    KH_TRY(find_family(p));
    KH_TRY(read_config(p));
    if (access(p->weights, F_OK) != 0)
        KH_FAIL(KH_ERR_NOT_FOUND,
                "%s: there is no such file (adapter_model.bin is a pickle and is not read)",
                p->weights);
    KH_TRY(kh_safetensors_open(&p->file, p->weights));
    for (size_t i = 0; i < kh_safetensors_count(p->file); i++)
        KH_TRY(read_tensor(p, kh_safetensors_at(p->file, i)));
    return KH_OK;
}

kh_status kh_lora_open_peft(kh_lora_set *set, const kh_gguf *base)
{
    reader p = {.set = set, .base = base};
    set->format = "PEFT";
    kh_status status = read_all(&p);
    kh_safetensors_close(p.file);
    json_decref(p.root);
    kh_free(p.config);
    kh_free(p.weights);
    return status;
}

/* config.json -> GGUF values.
 *
 * A family's rows come first, then what its adjust() adds, then the rows that all families share; a
 * key that is set already stays, so a family overrides by naming a key. Fields of a model with a
 * part about text (a "text_config" beside one about images) are looked up there first. `null` counts
 * as absent: Hugging Face writes it for "the default".
 *
 * Defaults of Hugging Face are not in the file, so where they matter they are in the tables. Fields
 * that would change what a family computes and that no table maps are KH_HF_EXPECT rows: another
 * activation, biases, a router without renormalisation are refused by name rather than run wrongly. */
#include "base/alloc.h"
#include "base/fail.h"
#include "model/hf_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const kh_hf_key kh_hf_shared_keys[] = {
    {"num_hidden_layers|n_layer|num_layers", "block_count", KH_HF_INT, KH_HF_NEED, 0},
    {"max_position_embeddings|n_positions|n_positions|n_ctx", "context_length", KH_HF_INT,
     KH_HF_NEED, 0},
    {"hidden_size|n_embd|d_model", "embedding_length", KH_HF_INT, KH_HF_NEED, 0},
    {"intermediate_size|n_inner|d_ff", "feed_forward_length", KH_HF_INT, KH_HF_NEED, 0},
    {"num_attention_heads|n_head|num_heads", "attention.head_count", KH_HF_INT, KH_HF_NEED, 0},
    {"num_key_value_heads", "attention.head_count_kv", KH_HF_INT, KH_HF_SKIP, 0},
    {"head_dim|head_dim|d_kv", "attention.key_length", KH_HF_INT, KH_HF_SKIP, 0},
    {"head_dim|head_dim|d_kv", "attention.value_length", KH_HF_INT, KH_HF_SKIP, 0},
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon", KH_HF_REAL, KH_HF_SKIP, 0},
    {"layer_norm_eps|layer_norm_epsilon", "attention.layer_norm_epsilon", KH_HF_REAL, KH_HF_SKIP,
     0},
    {"vocab_size", "vocab_size", KH_HF_INT, KH_HF_SKIP, 0},
    {"num_local_experts|num_experts", "expert_count", KH_HF_INT, KH_HF_SKIP, 0},
    {"num_experts_per_tok", "expert_used_count", KH_HF_INT, KH_HF_SKIP, 0},
    {"moe_intermediate_size", "expert_feed_forward_length", KH_HF_INT, KH_HF_SKIP, 0},
    {"attn_logit_softcapping", "attn_logit_softcapping", KH_HF_REAL, KH_HF_SKIP, 0},
    {"final_logit_softcapping", "final_logit_softcapping", KH_HF_REAL, KH_HF_SKIP, 0},
    {0}};

/* ---- fields ---- */

json_t *kh_hf_field(const kh_hf *hf, const char *fields)
{
    const char *word;
    char key[64];
    size_t size;
    while (kh_hf_next_word(&fields, &word, &size)) {
        snprintf(key, sizeof key, "%.*s", (int)size, word);
        json_t *value = kh_json_get(hf->text, key);
        if (!value) value = kh_json_get(hf->root, key);
        if (value) return value;
    }
    return NULL;
}

static kh_status wrong(const kh_hf *hf, const char *fields, const char *expected,
                       const json_t *found)
{
    return kh_fail(KH_ERR_FORMAT, "%s: %.*s: %s is expected, found %s", hf->config,
                   (int)strcspn(fields, "|"), fields, expected, kh_json_kind(found));
}

kh_status kh_hf_number(const kh_hf *hf, const char *fields, double *out)
{
    const json_t *value = kh_hf_field(hf, fields);
    double number;
    if (!value) return KH_OK;
    if (!kh_json_number(value, &number) || !isfinite(number))
        return wrong(hf, fields, "a number", value);
    *out = number;
    return KH_OK;
}

/* ---- values ---- */

kh_hf_name kh_hf_key_name(const kh_family *family, const char *key)
{
    kh_hf_name name;
    int whole = strncmp(key, "tokenizer.", 10) == 0;
    snprintf(name.text, sizeof name.text, "%s%s%s", whole ? "" : family->name, whole ? "" : ".",
             key);
    return name;
}

static int is_set(const kh_hf *hf, const char *key)
{
    return kh_gguf_find(hf->file, kh_hf_key_name(hf->family, key).text) != NULL;
}

kh_status kh_hf_set_int(kh_hf *hf, const char *key, uint64_t value)
{
    if (is_set(hf, key)) return KH_OK;
    return kh_gguf_set_u64(hf->file, kh_hf_key_name(hf->family, key).text, KH_GGUF_U32, value);
}

kh_status kh_hf_set_real(kh_hf *hf, const char *key, double value)
{
    if (is_set(hf, key)) return KH_OK;
    return kh_gguf_set_f32(hf->file, kh_hf_key_name(hf->family, key).text, (float)value);
}

kh_status kh_hf_set_bool(kh_hf *hf, const char *key, int value)
{
    if (is_set(hf, key)) return KH_OK;
    return kh_gguf_set_u64(hf->file, kh_hf_key_name(hf->family, key).text, KH_GGUF_BOOL,
                           value != 0);
}

kh_status kh_hf_value(const kh_hf *hf, const char *key, uint64_t *out)
{
    return kh_gguf_opt_u64(hf->file, kh_hf_key_name(hf->family, key).text, out, UINT32_MAX);
}

void kh_hf_skip_positions(kh_hf *hf, uint64_t rows)
{
    hf->skipped_positions = rows;
}

/* ---- rows of the tables ---- */

static kh_status expect(const kh_hf *hf, const kh_hf_key *key, const json_t *value)
{
    char text[80];
    if (json_is_string(value))
        snprintf(text, sizeof text, "%s", json_string_value(value));
    else if (json_is_boolean(value))
        snprintf(text, sizeof text, "%s", json_is_true(value) ? "true" : "false");
    else if (json_is_number(value))
        snprintf(text, sizeof text, "%g", json_number_value(value));
    else
        snprintf(text, sizeof text, "%s",
                 json_is_array(value) && json_array_size(value) == 0 ? "[]" : kh_json_kind(value));
    if (kh_hf_has_word(key->to, text)) return KH_OK;
    KH_FAIL(KH_ERR_UNSUPPORTED, "%s: %.*s: a %s model with \"%s\" is not supported (known: %s)",
            hf->config, (int)strcspn(key->from, "|"), key->from, hf->family->name, text, key->to);
}

static kh_status set_text(kh_hf *hf, const kh_hf_key *key, const json_t *value)
{
    if (!json_is_string(value)) return wrong(hf, key->from, "a string", value);
    return kh_gguf_set_string(hf->file, kh_hf_key_name(hf->family, key->to).text,
                              (kh_slice){json_string_value(value), json_string_length(value)});
}

static kh_status set_row(kh_hf *hf, const kh_hf_key *key, const json_t *value)
{
    double number = key->initial;
    if (key->kind == KH_HF_TEXT) return set_text(hf, key, value);
    if (key->kind == KH_HF_BOOL && value) {
        if (!json_is_boolean(value)) return wrong(hf, key->from, "a truth value", value);
        number = json_is_true(value);
    } else if (value && !(kh_json_number(value, &number) && isfinite(number))) {
        return wrong(hf, key->from, "a number", value);
    }
    if (key->kind == KH_HF_SCALE) {
        if (!(number > 0)) return wrong(hf, key->from, "a positive number", value);
        return kh_hf_set_real(hf, key->to, 1 / sqrt(number));
    }
    if (key->kind == KH_HF_REAL) return kh_hf_set_real(hf, key->to, number);
    if (key->kind == KH_HF_BOOL) return kh_hf_set_bool(hf, key->to, number != 0);
    if (!(number >= 0 && number <= UINT32_MAX) || number != floor(number))
        KH_FAIL(KH_ERR_FORMAT, "%s: %.*s: a natural number is expected, found %g", hf->config,
                (int)strcspn(key->from, "|"), key->from, number);
    return kh_hf_set_int(hf, key->to, (uint64_t)number);
}

static kh_status read_keys(kh_hf *hf, const kh_hf_key *keys)
{
    for (const kh_hf_key *key = keys; key && key->from; key++) {
        const json_t *value = kh_hf_field(hf, key->from);
        if (key->kind == KH_HF_EXPECT) {
            if (value) KH_TRY(expect(hf, key, value));
            continue;
        }
        if (key->kind == KH_HF_HAS || is_set(hf, key->to)) continue;
        if (!value && key->absent == KH_HF_NEED)
            KH_FAIL(KH_ERR_FORMAT, "%s: %.*s is missing, which a %s model needs", hf->config,
                    (int)strcspn(key->from, "|"), key->from, hf->family->name);
        if (value || key->absent == KH_HF_USE) KH_TRY(set_row(hf, key, value));
    }
    return KH_OK;
}

/* ---- windows ---- */

/* Which layers see a window: as layer_types says, else all but every n-th, else from a layer on. */
static kh_status local_layers(const kh_hf *hf, uint8_t *local, uint64_t n, int *standard)
{
    const json_t *types = kh_hf_field(hf, "layer_types");
    double period = hf->map->window_period, from = 0;
    KH_TRY(kh_hf_number(hf, "sliding_window_pattern|_sliding_window_pattern", &period));
    if (kh_hf_field(hf, "use_sliding_window")) KH_TRY(kh_hf_number(hf, "max_window_layers", &from));
    if (types && (!json_is_array(types) || json_array_size(types) != n))
        KH_FAIL(KH_ERR_FORMAT, "%s: layer_types: a list of %llu is expected, found %s of %zu",
                hf->config, (unsigned long long)n, kh_json_kind(types), json_array_size(types));
    *standard = 1;
    for (uint64_t l = 0; l < n; l++) {
        local[l] = (double)l >= from && (period <= 1 || fmod((double)(l + 1), period) != 0);
        const char *type = json_string_value(json_array_get(types, l));
        int known = type &&
                    (strcmp(type, "full_attention") == 0 || strcmp(type, "sliding_attention") == 0);
        if (types && !known)
            KH_FAIL(
                KH_ERR_UNSUPPORTED,
                "%s: layer_types: full_attention or sliding_attention is expected, found %s%.40s",
                hf->config, type ? "" : "no text", type ? type : "");
        if (types) local[l] = type[0] == 's';
        int usual = hf->map->window_period;
        *standard &= usual > 0 && local[l] == (usual == 1 || (l + 1) % (uint64_t)usual != 0);
    }
    return KH_OK;
}

static kh_status read_windows(kh_hf *hf)
{
    double window = 0;
    uint64_t n = 0, any = 0;
    uint8_t local[KH_MAX_LAYERS];
    int standard = 1;
    if (hf->map->window_period == 0) return KH_OK;
    if (json_is_false(kh_hf_field(hf, "use_sliding_window"))) return KH_OK;
    KH_TRY(kh_hf_number(hf, "sliding_window", &window));
    KH_TRY(kh_hf_value(hf, "block_count", &n));
    if (window <= 0 || n > KH_MAX_LAYERS) return KH_OK; /* too many layers: kh_describe says so */
    KH_TRY(local_layers(hf, local, n, &standard));
    for (uint64_t l = 0; l < n; l++) any += local[l];
    if (any == 0) return KH_OK;
    KH_TRY(kh_hf_set_int(hf, "attention.sliding_window", (uint64_t)window));
    if (standard) return KH_OK;
    return kh_gguf_set_array(hf->file,
                             kh_hf_key_name(hf->family, "attention.sliding_window_pattern").text,
                             KH_GGUF_BOOL, local, n);
}

/* ---- how sentences become one vector ---- */

static kh_status read_pooling(kh_hf *hf)
{
    static const char *const modes[] = {"", "pooling_mode_mean_tokens", "pooling_mode_cls_token",
                                        "pooling_mode_lasttoken"}; /* by GGUF's numbers */
    char path[4096];
    json_t *pooling = NULL;
    snprintf(path, sizeof path, "%s1_Pooling/config.json", hf->folder);
    kh_status status = kh_json_read(&pooling, path, 1 << 20);
    if (status == KH_ERR_NOT_FOUND) return KH_OK;
    uint64_t mode = 0;
    for (uint64_t i = 1; i < 4 && status == KH_OK; i++)
        if (mode == 0 && json_is_true(kh_json_get(pooling, modes[i]))) mode = i;
    if (status == KH_OK && mode > 0) status = kh_hf_set_int(hf, "pooling_type", mode);
    if (status == KH_OK && mode == 0)
        status = kh_fail(KH_ERR_UNSUPPORTED,
                         "%s: mean, cls or last token is expected, none of them is true", path);
    json_decref(pooling);
    return status;
}

kh_status kh_hf_read_config(kh_hf *hf)
{
    const json_t *tied = kh_hf_field(hf, "tie_word_embeddings");
    if (tied && !json_is_boolean(tied))
        return wrong(hf, "tie_word_embeddings", "a truth value", tied);
    hf->tied = tied ? json_is_true(tied) : (hf->map->flags & KH_HF_TIED) != 0;
    if (hf->map->flags & KH_HF_ROTARY) KH_TRY(kh_hf_read_theta(hf));
    KH_TRY(read_keys(hf, hf->map->keys));
    if (hf->map->adjust) KH_TRY(hf->map->adjust(hf));
    KH_TRY(read_keys(hf, kh_hf_shared_keys));
    KH_TRY(read_windows(hf));
    KH_TRY(read_pooling(hf));
    return kh_hf_read_sizes(hf);
}

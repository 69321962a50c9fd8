/* config.json of a model: the rows of its tables, read from value to field.
 *
 * A row names several fields where families differ ("num_hidden_layers|n_layer|num_layers"); the map's
 * dialect says which of them its class reads. Rows that only expect something write what they expect.
 * Rope and windows are written as transformers 4 wrote them, which 5 reads too.
 *
 * The divisors that a Llama 3 file carries do not say which four numbers made them. When the published
 * ones (factor, 1, 4, 8192) give the same divisors, those are written; else the divisors themselves, as
 * a longrope whose short and long factors are equal, which computes the same. */
#include "base/fail.h"
#include "base/file.h"
#include "model/hf_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The shortest decimal number that is this float. */
static json_t *real(double value)
{
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if ((float)strtod(text, NULL) == (float)value) break;
    }
    return json_real(strtod(text, NULL));
}

/* Sets a field unless it is there; NULL travels on to where the document is written. */
static kh_status set(kh_hf_out *o, json_t *object, const char *key, json_t *value)
{
    int there = json_object_get(object, key) != NULL;
    if (there)
        json_decref(value);
    else if (json_object_set_new(object, key, value) != 0)
        KH_FAIL(KH_ERR_MEMORY, "%s: no memory for config.json", kh_gguf_path(o->file));
    return KH_OK;
}

static int present(const kh_hf_out *o, const char *key)
{
    return kh_gguf_find(o->file, kh_hf_key_name(o->family, key).text) != NULL;
}

/* A number of the file, or what `other` says. */
static double value_of(const kh_hf_out *o, const char *key, double other)
{
    const kh_gguf_value *value = kh_gguf_find(o->file, kh_hf_key_name(o->family, key).text);
    double found;
    if (value && kh_gguf_element_f64(value, 0, &found) == KH_OK) other = found;
    return other;
}

/* ---- rows ---- */

static void field_name(char out[64], const kh_hf_out *o, const char *fields)
{
    const char *word;
    size_t size;
    for (int i = 0; kh_hf_next_word(&fields, &word, &size); i++) {
        snprintf(out, 64, "%.*s", (int)size, word);
        if (i == o->map->dialect) return;
    }
}

/* What a row expects, as a value. */
static json_t *expected(const char *words)
{
    char text[64], *end;
    snprintf(text, sizeof text, "%.*s", (int)strcspn(words, "|"), words);
    if (strcmp(text, "true") == 0) return json_true();
    if (strcmp(text, "false") == 0) return json_false();
    if (strcmp(text, "none") == 0) return json_null();
    double number = strtod(text, &end);
    return *text && !*end ? json_real(number) : json_string(text);
}

/* KH_HF_HAS: a truth value, or the word for it. */
static json_t *whether(const kh_hf_out *o, const char *tensor)
{
    char text[KH_HF_NAME];
    snprintf(text, sizeof text, "%s", tensor);
    char *yes = strchr(text, '?'), *no = yes ? strchr(yes, ':') : NULL;
    if (yes) *yes++ = 0;
    if (no) *no++ = 0;
    int there = kh_gguf_tensor(o->file, text) != NULL;
    return yes && no ? json_string(there ? yes : no) : json_boolean(there);
}

static kh_status write_row(kh_hf_out *o, json_t *root, const kh_hf_key *key)
{
    char field[64] = "";
    field_name(field, o, key->from);
    if (!field[0]) return KH_OK;
    if (key->kind == KH_HF_EXPECT) return set(o, root, field, expected(key->to));
    if (key->kind == KH_HF_SCALE) {
        double n = 1 / ((double)o->d.attn_scale * (double)o->d.attn_scale), whole = round(n);
        int is_whole = fabs(n - whole) < 1e-5 * n; /* as all published ones */
        return set(o, root, field, is_whole ? json_integer((json_int_t)whole) : real(n));
    }
    if (key->kind == KH_HF_HAS) return set(o, root, field, whether(o, key->to));
    const kh_gguf_value *value = kh_gguf_find(o->file, kh_hf_key_name(o->family, key->to).text);
    if (!value) return KH_OK;
    if (key->kind == KH_HF_TEXT) {
        kh_slice text = {"", 0};
        KH_TRY(kh_gguf_opt_string(o->file, kh_hf_key_name(o->family, key->to).text, &text));
        return set(o, root, field, json_stringn(text.data, text.size));
    }
    double number = value_of(o, key->to, 0);
    uint64_t flag = 0;
    if (key->kind == KH_HF_BOOL) {
        KH_TRY(kh_gguf_element_u64(value, 0, &flag));
        return set(o, root, field, json_boolean(flag));
    }
    if (key->kind == KH_HF_REAL) return set(o, root, field, real(number));
    return set(o, root, field, json_integer((json_int_t)number));
}

static kh_status write_rows(kh_hf_out *o, json_t *root, const kh_hf_key *keys)
{
    /* expectations last: a field that has a value says it itself */
    for (const kh_hf_key *key = keys; key->from; key++)
        if (key->kind != KH_HF_EXPECT) KH_TRY(write_row(o, root, key));
    for (const kh_hf_key *key = keys; key->from; key++)
        if (key->kind == KH_HF_EXPECT) KH_TRY(write_row(o, root, key));
    return KH_OK;
}

/* ---- rope ---- */

static json_t *factors(const kh_tensor *t)
{
    json_t *list = json_array();
    const float *data = t->data;
    for (uint64_t i = 0; i < t->dims[0]; i++)
        if (json_array_append_new(list, real((double)data[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

/* Do the published numbers of Llama 3 give these divisors? *factor is their largest. */
static int is_llama3(const kh_hf_out *o, const kh_tensor *t, double *factor)
{
    const float *data = t->data;
    size_t n = (size_t)t->dims[0];
    double gap = 0;
    *factor = 1;
    for (size_t i = 0; i < n; i++) *factor = fmax(*factor, (double)data[i]);
    for (size_t i = 0; i < n; i++) {
        double want = kh_hf_llama3_divisor(o->d.rope[0].base, i, 2 * n, *factor, 1, 4, 8192);
        gap = fmax(gap, fabs(want - (double)data[i]));
    }
    return gap < 1e-4;
}

static kh_status longrope(kh_hf_out *o, json_t *root, json_t *rope, const kh_tensor *lengthy,
                          const kh_tensor *brief, double attention, json_int_t original)
{
    KH_TRY(set(o, rope, "rope_type", json_string("longrope")));
    KH_TRY(set(o, rope, "long_factor", factors(lengthy)));
    KH_TRY(set(o, rope, "short_factor", factors(brief)));
    KH_TRY(set(o, rope, "attention_factor", real(attention)));
    KH_TRY(set(o, rope, "factor", json_real((double)o->d.context / (double)original)));
    KH_TRY(set(o, rope, "original_max_position_embeddings", json_integer(original)));
    return set(o, root, "original_max_position_embeddings", json_integer(original));
}

static kh_status write_scaling(kh_hf_out *o, json_t *root, json_t *rope)
{
    const kh_rope_spec *spec = &o->d.rope[0];
    const kh_tensor *freqs = kh_gguf_tensor(o->file, "rope_freqs.weight");
    const kh_tensor *lengthy = kh_gguf_tensor(o->file, "rope_factors_long.weight");
    const kh_tensor *brief = kh_gguf_tensor(o->file, "rope_factors_short.weight");
    double attention = value_of(o, "rope.scaling.attn_factor", 0), factor;
    if ((freqs && freqs->type != KH_TYPE_F32) || (lengthy && lengthy->type != KH_TYPE_F32) ||
        (brief && brief->type != KH_TYPE_F32))
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: rope factors in F32 are expected", kh_gguf_path(o->file));
    if (lengthy && brief)
        return longrope(o, root, rope, lengthy, brief, attention > 0 ? attention : 1,
                        (json_int_t)spec->original);
    if (freqs && !is_llama3(o, freqs, &factor))
        return longrope(o, root, rope, freqs, freqs, 1, o->d.context);
    if (freqs) {
        KH_TRY(set(o, rope, "rope_type", json_string("llama3")));
        KH_TRY(set(o, rope, "factor", real(factor)));
        KH_TRY(set(o, rope, "low_freq_factor", json_real(1)));
        KH_TRY(set(o, rope, "high_freq_factor", json_real(4)));
        return set(o, rope, "original_max_position_embeddings", json_integer(8192));
    }
    if (spec->scaling == KH_ROPE_NONE) return KH_OK;
    KH_TRY(
        set(o, rope, "rope_type", json_string(spec->scaling == KH_ROPE_YARN ? "yarn" : "linear")));
    KH_TRY(set(o, rope, "factor", real(spec->factor)));
    if (spec->scaling != KH_ROPE_YARN) return KH_OK;
    KH_TRY(
        set(o, rope, "original_max_position_embeddings", json_integer((json_int_t)spec->original)));
    if (spec->beta_fast > 0) KH_TRY(set(o, rope, "beta_fast", real(spec->beta_fast)));
    if (spec->beta_slow > 0) KH_TRY(set(o, rope, "beta_slow", real(spec->beta_slow)));
    double own = spec->factor > 1 ? 0.1 * log(spec->factor) + 1 : 1;
    return spec->attn_factor > 0 ? set(o, rope, "attention_factor", real(spec->attn_factor * own))
                                 : KH_OK;
}

static kh_status write_rope(kh_hf_out *o, json_t *root)
{
    const kh_rope_spec *spec = &o->d.rope[0];
    json_t *rope = json_object();
    if (!(o->map->flags & KH_HF_ROTARY)) {
        json_decref(rope);
        return KH_OK;
    }
    kh_status status = rope ? write_scaling(o, root, rope)
                            : kh_fail(KH_ERR_MEMORY, "no memory for config.json");
    if (status == KH_OK && json_object_size(rope) > 0)
        status = set(o, root, "rope_scaling", json_incref(rope));
    json_decref(rope);
    KH_TRY(status);
    if (!json_object_get(root, "rotary_emb_base"))
        KH_TRY(set(o, root, "rope_theta", real(spec->base)));
    double share = (double)spec->n_rot / (double)o->d.E;
    /* readers cut n_rot = share * E off; nine digits of 4/12 are less than it */
    if (fmod(share, 0x1p-9) != 0) share += 1e-8;
    if (o->map->rotated > 0) return set(o, root, "rotary_pct", real(share));
    return share < 1 ? set(o, root, "partial_rotary_factor", real(share)) : KH_OK;
}

/* ---- windows ---- */

static kh_status write_windows(kh_hf_out *o, json_t *root)
{
    int period = o->map->window_period;
    if (period == 0) return KH_OK;
    if (period == KH_HF_LISTED)
        KH_TRY(set(o, root, "use_sliding_window", json_boolean(o->d.window > 0)));
    if (period <= 1 && o->d.window == 0) return set(o, root, "sliding_window", json_null());
    KH_TRY(set(o, root, "sliding_window", json_integer(o->d.window > 0 ? o->d.window : 4096)));
    if (period == KH_HF_LISTED) KH_TRY(set(o, root, "max_window_layers", json_integer(0)));
    if (period == 1) return KH_OK; /* all layers: the class has no list of them */
    json_t *types = json_array();
    int failed = !types;
    for (int l = 0; l < o->d.N && !failed; l++)
        failed = json_array_append_new(
            types, json_string(o->d.local[l] ? "sliding_attention" : "full_attention"));
    if (failed) {
        json_decref(types);
        KH_FAIL(KH_ERR_MEMORY, "no memory for config.json");
    }
    return set(o, root, "layer_types", types);
}

/* ---- the rest ---- */

/* The class: the first of the map's, but that of its heads for an encoder. */
static kh_status write_class(kh_hf_out *o, json_t *root)
{
    const char *list = o->map->architectures, *word, *part = "";
    char class[64] = "", type[64];
    size_t size;
    if (o->d.structure == KH_ENCODER)
        part = kh_gguf_tensor(o->file, "span_output.weight")  ? "QuestionAnswering"
               : kh_gguf_tensor(o->file, "mask_dense.weight") ? "MaskedLM"
                                                              : "Model";
    while (kh_hf_next_word(&list, &word, &size)) {
        snprintf(class, sizeof class, "%.*s", (int)size, word);
        if (strstr(class, part)) break;
    }
    snprintf(type, sizeof type, "%.*s", (int)strcspn(o->map->model_types, "|"),
             o->map->model_types);
    KH_TRY(set(o, root, "architectures", json_pack("[s]", class)));
    return set(o, root, "model_type", json_string(type));
}

static kh_status write_ids(kh_hf_out *o, json_t *root)
{
    static const char *const ids[][2] = {{"bos_token_id", "tokenizer.ggml.bos_token_id"},
                                         {"eos_token_id", "tokenizer.ggml.eos_token_id"},
                                         {"pad_token_id", "tokenizer.ggml.padding_token_id"}};
    for (size_t i = 0; i < 3; i++) {
        /* a class's own padding id may lie outside the vocabulary */
        json_t *none = i == 2 && o->d.structure == KH_DECODER ? json_null() : NULL;
        json_t *id = json_integer((json_int_t)value_of(o, ids[i][1], 0));
        if (!present(o, ids[i][1])) {
            json_decref(id);
            id = none;
        }
        if (id) KH_TRY(set(o, root, ids[i][0], id));
    }
    return set(o, root, "tie_word_embeddings",
               json_boolean(kh_gguf_tensor(o->file, "output.weight") == NULL));
}

static kh_status fill(kh_hf_out *o, json_t *root)
{
    KH_TRY(write_class(o, root));
    KH_TRY(write_rows(o, root, o->map->keys));
    KH_TRY(write_rows(o, root, kh_hf_shared_keys));
    KH_TRY(write_rope(o, root));
    KH_TRY(write_windows(o, root));
    /* what the file leaves to its architecture, config.json's class may see otherwise */
    if (o->d.structure == KH_DECODER && !present(o, "attention.head_count_kv") &&
        json_object_get(root, "num_attention_heads"))
        KH_TRY(set(o, root, "num_key_value_heads", json_integer(o->d.G)));
    KH_TRY(set(o, root, "vocab_size", json_integer(o->d.V)));
    return write_ids(o, root);
}

static int put(const char *bytes, size_t n, void *context)
{
    return kh_outfile_write(context, bytes, n) == KH_OK ? 0 : -1;
}

kh_status kh_hf_write_config(kh_hf_out *out, const char *path)
{
    kh_outfile *file = NULL;
    json_t *root = json_object();
    kh_status status = root ? fill(out, root) : kh_fail(KH_ERR_MEMORY, "no memory for config.json");
    if (status == KH_OK) status = kh_outfile_open(&file, path);
    if (status == KH_OK &&
        json_dump_callback(root, put, file,
                           JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(9)))
        status = kh_fail(KH_ERR_IO, "%s: cannot be written", path);
    json_decref(root);
    if (status == KH_OK) status = kh_outfile_write(file, "\n", 1);
    if (status == KH_OK) return kh_outfile_commit(file);
    kh_outfile_abandon(file);
    return status;
}

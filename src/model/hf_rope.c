/* Rotary positions of a folder.
 *
 * Where the numbers stand has changed with the years: rope_theta, rope_scaling {"type": ...} and
 * partial_rotary_factor at the top; then rope_scaling {"rope_type": ...}; now all of it in
 * rope_parameters, which for models with windows is one object for each kind of layer. All are read.
 *
 *     default, dynamic   nothing: dynamic scaling changes the base beyond the trained length only
 *     linear             factor
 *     yarn               factor, original length, betas, magnitude
 *     llama3             its four numbers become rope_freqs.weight, a divisor for each frequency
 *     longrope, su       two tables of divisors, and a magnitude
 *
 * GGUF's attn_factor multiplies YaRN's own magnitude 0.1 ln(factor) + 1, while Hugging Face's
 * attention_factor replaces it; what is written is the quotient. */
#include "base/alloc.h"
#include "base/fail.h"
#include "model/hf_impl.h"

#include <math.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

/* The object about `kind` of layers, or about all; NULL when there is none. */
static json_t *rope_object(const kh_hf *hf, const char *kind)
{
    json_t *rope = kh_hf_field(hf, "rope_parameters");
    if (!json_is_object(rope)) rope = kh_hf_field(hf, "rope_scaling");
    json_t *part = kh_json_get(rope, kind);
    if (json_is_object(part)) return part;
    return strcmp(kind, "full_attention") == 0 && json_is_object(rope) ? rope : NULL;
}

/* A number of the object; left alone when absent. */
static kh_status number(const kh_hf *hf, const json_t *rope, const char *key, double *out)
{
    const json_t *value = kh_json_get(rope, key);
    double found;
    if (!value) return KH_OK;
    if (!kh_json_number(value, &found) || !isfinite(found))
        KH_FAIL(KH_ERR_FORMAT, "%s: rope scaling: %s: a number is expected, found %s", hf->config,
                key, kh_json_kind(value));
    *out = found;
    return KH_OK;
}

kh_status kh_hf_read_theta(kh_hf *hf)
{
    double theta = 0, local = 0;
    KH_TRY(kh_hf_number(hf, "rope_theta|rotary_emb_base", &theta));
    KH_TRY(number(hf, rope_object(hf, "full_attention"), "rope_theta", &theta));
    KH_TRY(kh_hf_number(hf, "rope_local_base_freq", &local));
    KH_TRY(number(hf, rope_object(hf, "sliding_attention"), "rope_theta", &local));
    if (theta != 0) KH_TRY(kh_hf_set_real(hf, "rope.freq_base", theta));
    if (local != 0) KH_TRY(kh_hf_set_real(hf, "rope.freq_base_swa", local));
    return KH_OK;
}

static kh_status set_type(kh_hf *hf, const char *type)
{
    return kh_gguf_set_string(hf->file, kh_hf_key_name(hf->family, "rope.scaling.type").text,
                              (kh_slice){type, strlen(type)});
}

typedef struct scaling {
    const json_t *rope;
    double factor, original, context;
    size_t n_rot;
} scaling;

static kh_status need_factor(const kh_hf *hf, const scaling *s)
{
    if (!(s->factor > 0))
        KH_FAIL(KH_ERR_FORMAT, "%s: rope scaling: factor: a positive number is expected, found %g",
                hf->config, s->factor);
    return KH_OK;
}

static kh_status read_linear(kh_hf *hf, const scaling *s)
{
    KH_TRY(need_factor(hf, s));
    KH_TRY(set_type(hf, "linear"));
    return kh_hf_set_real(hf, "rope.scaling.factor", s->factor);
}

static double magnitude(double factor, double scale)
{
    return factor > 1 ? 0.1 * scale * log(factor) + 1 : 1;
}

static kh_status read_yarn(kh_hf *hf, const scaling *given)
{
    double scale = 0, all = 0, attention = 0, fast = 0, slow = 0;
    scaling whole = *given, *s = &whole;
    if (s->factor == 0) s->factor = s->context / s->original;
    KH_TRY(need_factor(hf, s));
    if (json_is_false(json_object_get(s->rope, "truncate")))
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: rope scaling: truncate: true is expected, found false",
                hf->config);
    KH_TRY(set_type(hf, "yarn"));
    KH_TRY(kh_hf_set_real(hf, "rope.scaling.factor", s->factor));
    KH_TRY(kh_hf_set_int(hf, "rope.scaling.original_context_length", (uint64_t)s->original));
    KH_TRY(number(hf, s->rope, "mscale", &scale));
    KH_TRY(number(hf, s->rope, "mscale_all_dim", &all));
    if (scale != 0 && all != 0) attention = magnitude(s->factor, scale) / magnitude(s->factor, all);
    KH_TRY(number(hf, s->rope, "attention_factor", &attention));
    KH_TRY(number(hf, s->rope, "beta_fast", &fast));
    KH_TRY(number(hf, s->rope, "beta_slow", &slow));
    if (fast > 0) KH_TRY(kh_hf_set_real(hf, "rope.scaling.yarn_beta_fast", fast));
    if (slow > 0) KH_TRY(kh_hf_set_real(hf, "rope.scaling.yarn_beta_slow", slow));
    if (attention <= 0) return KH_OK;
    return kh_hf_set_real(hf, "rope.scaling.attn_factor", attention / magnitude(s->factor, 1));
}

/* Frequencies whose wave is longer than original / low are divided by the factor, those shorter than
 * original / high are kept, in between a blend over original / wavelength. */
double kh_hf_llama3_divisor(double base, size_t i, size_t n_rot, double factor, double low,
                            double high, double original)
{
    double frequency = pow(base, -(double)(2 * i) / (double)n_rot);
    double turns = original * frequency / (2 * pi), keep = (turns - low) / (high - low);
    keep = keep < 0 ? 0 : keep > 1 ? 1 : keep;
    return 1 / ((1 - keep) / factor + keep);
}

static kh_status read_llama3(kh_hf *hf, const scaling *s)
{
    double low = 1, high = 4, base = 10000;
    KH_TRY(need_factor(hf, s));
    KH_TRY(number(hf, s->rope, "low_freq_factor", &low));
    KH_TRY(number(hf, s->rope, "high_freq_factor", &high));
    KH_TRY(kh_gguf_opt_f64(hf->file, kh_hf_key_name(hf->family, "rope.freq_base").text, &base));
    if (!(low > 0 && high > low))
        KH_FAIL(KH_ERR_FORMAT,
                "%s: rope scaling: 0 < low_freq_factor < high_freq_factor is expected, found %g "
                "and %g",
                hf->config, low, high);
    float *divisors;
    KH_TRY(kh_new(&divisors, s->n_rot / 2, sizeof *divisors, "rope factors"));
    for (size_t i = 0; i < s->n_rot / 2; i++)
        divisors[i] = (float)kh_hf_llama3_divisor(base, i, s->n_rot, s->factor, low, high,
                                                  s->original);
    return kh_hf_add_vector(hf, "rope_freqs.weight", divisors, s->n_rot / 2);
}

static kh_status add_factors(kh_hf *hf, const scaling *s, const char *key, const char *name)
{
    const json_t *list = kh_json_get(s->rope, key);
    size_t n = s->n_rot / 2;
    if (!json_is_array(list) || json_array_size(list) != n)
        KH_FAIL(KH_ERR_FORMAT,
                "%s: rope scaling: %s: a list of %zu numbers is expected, found %s of %zu",
                hf->config, key, n, kh_json_kind(list), json_array_size(list));
    float *factors;
    KH_TRY(kh_new(&factors, n, sizeof *factors, "rope factors"));
    for (size_t i = 0; i < n; i++) {
        double value = 0;
        if (!kh_json_number(json_array_get(list, i), &value) || !(value > 0)) {
            kh_free(factors);
            KH_FAIL(KH_ERR_FORMAT, "%s: rope scaling: %s: positive numbers are expected, found %s",
                    hf->config, key, kh_json_kind(json_array_get(list, i)));
        }
        factors[i] = (float)value;
    }
    return kh_hf_add_vector(hf, name, factors, n);
}

static kh_status read_longrope(kh_hf *hf, const scaling *s)
{
    double factor = s->factor > 0 ? s->factor : s->context / s->original;
    double attention = factor > 1 ? sqrt(1 + log(factor) / log(s->original)) : 1;
    KH_TRY(number(hf, s->rope, "attention_factor", &attention));
    KH_TRY(set_type(hf, "longrope"));
    KH_TRY(kh_hf_set_int(hf, "rope.scaling.original_context_length", (uint64_t)s->original));
    KH_TRY(kh_hf_set_real(hf, "rope.scaling.attn_factor", attention));
    KH_TRY(add_factors(hf, s, "long_factor", "rope_factors_long.weight"));
    return add_factors(hf, s, "short_factor", "rope_factors_short.weight");
}

static kh_status read_rotated(kh_hf *hf, const json_t *rope, size_t *out)
{
    double part = hf->map->rotated > 0 ? hf->map->rotated : 1;
    KH_TRY(kh_hf_number(hf, "partial_rotary_factor|rotary_pct", &part));
    KH_TRY(number(hf, rope, "partial_rotary_factor", &part));
    double rotated = floor(part * (double)hf->sizes['E'] + 1e-9);
    if (!(rotated >= 2 && rotated <= (double)hf->sizes['E'] && fmod(rotated, 2) == 0))
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "%s: partial_rotary_factor: an even number of rotated elements of a head of %llu "
                "is expected, found %g",
                hf->config, (unsigned long long)hf->sizes['E'], rotated);
    *out = (size_t)rotated;
    return kh_hf_set_int(hf, "rope.dimension_count", (uint64_t)rotated);
}

kh_status kh_hf_read_rope(kh_hf *hf)
{
    static const struct {
        const char *types;
        kh_status (*read)(kh_hf *hf, const scaling *s);
    } known[] = {{"default|dynamic", NULL},
                 {"linear", read_linear},
                 {"yarn", read_yarn},
                 {"llama3", read_llama3},
                 {"longrope|su", read_longrope}};
    if (!(hf->map->flags & KH_HF_ROTARY)) return KH_OK;
    uint64_t context = 0;
    KH_TRY(kh_hf_value(hf, "context_length", &context));
    scaling s = {.rope = rope_object(hf, "full_attention"), .context = (double)context};
    KH_TRY(read_rotated(hf, s.rope, &s.n_rot));
    const json_t *type = kh_json_get(s.rope, "rope_type");
    if (!type) type = kh_json_get(s.rope, "type");
    if (!type) return KH_OK;
    s.original = s.context;
    KH_TRY(number(hf, s.rope, "factor", &s.factor));
    KH_TRY(kh_hf_number(hf, "original_max_position_embeddings", &s.original));
    KH_TRY(number(hf, s.rope, "original_max_position_embeddings", &s.original));
    if (!(s.original > 1 && s.original < 1e9))
        KH_FAIL(KH_ERR_FORMAT,
                "%s: original_max_position_embeddings: a number above 1 is expected, found %g",
                hf->config, s.original);
    const char *name = json_is_string(type) ? json_string_value(type) : kh_json_kind(type);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (kh_hf_has_word(known[i].types, name))
            return known[i].read ? known[i].read(hf, &s) : KH_OK;
    KH_FAIL(KH_ERR_UNSUPPORTED,
            "%s: rope scaling: \"%.40s\" is not supported (known: default, dynamic, linear, yarn, "
            "llama3, longrope)",
            hf->config, name);
}

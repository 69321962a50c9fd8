/* Initial weights.
 *
 * A law (normal, uniform, constant) and a width are chosen by what a tensor is, which its name says. Number i
 * of a tensor is a pure function of (seed, hash of the name, i): any thread draws any part, and two models that
 * share a seed and a tensor share its numbers.
 *
 * Normal numbers come from one uniform each, by the inverse of the distribution function (Wichura, algorithm
 * AS 241, 1988: 1e-16), whose logarithm is built from IEEE 754's operations here. Box-Muller through libm was
 * rejected: its log and cos differ in the last bit between processors. Sinusoids are the one exception. */
#include "train/init.h"

#include "base/fail.h"
#include "base/rng.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 1 << 14 };

typedef enum law { CONSTANT, NORMAL, UNIFORM, SINUSOID } law;

typedef struct plan {
    law law;
    double width[3]; /* of each matrix that the tensor holds */
} plan;

/* ---- normal numbers */

static double natural_log(double x)
{
    int exponent;
    double m = frexp(x, &exponent);
    if (m < 0.70710678118654752) {
        m *= 2;
        exponent--;
    }
    double s = (m - 1) / (m + 1), square = s * s, sum = 0;
    for (int n = 21; n >= 1; n -= 2) sum = sum * square + 1.0 / n;
    return 2 * s * sum + exponent * 0.69314718055994530942;
}

static double ratio(const double *above /* [8] */, const double *below /* [8] */, double x)
{
    double a = 0, b = 0;
    for (int i = 7; i >= 0; i--) {
        a = a * x + above[i];
        b = b * x + below[i];
    }
    return a / b;
}

/* p in (0, 1) */
static double normal_of(double p)
{
    static const double middle[2][8] = {
        {3.3871328727963666080e0, 1.3314166789178437745e+2, 1.9715909503065514427e+3,
         1.3731693765509461125e+4, 4.5921953931549871457e+4, 6.7265770927008700853e+4,
         3.3430575583588128105e+4, 2.5090809287301226727e+3},
        {1.0, 4.2313330701600911252e+1, 6.8718700749205790830e+2, 5.3941960214247511077e+3,
         2.1213794301586595867e+4, 3.9307895800092710610e+4, 2.8729085735721942674e+4,
         5.2264952788528545610e+3}};
    static const double near[2][8] = {
        {1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
         3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
         2.27238449892691845833e-2, 7.74545014278341407640e-4},
        {1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
         1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
         1.05075007164441684324e-9}};
    static const double far[2][8] = {
        {6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0,
         2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
         2.71155556874348757815e-5, 2.01033439929228813265e-7},
        {1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
         7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
         2.04426310338993978564e-15}};
    double q = p - 0.5;
    if (q >= -0.425 && q <= 0.425) return q * ratio(middle[0], middle[1], 0.180625 - q * q);
    double r = sqrt(-natural_log(q < 0 ? p : 1 - p));
    double x = r <= 5 ? ratio(near[0], near[1], r - 1.6) : ratio(far[0], far[1], r - 5);
    return q < 0 ? -x : x;
}

/* ---- which law */

static int has(const char *name, const char *part)
{
    return strstr(name, part) != NULL;
}

/* Projections whose result is added to the residual stream. */
static int is_residual(const char *name)
{
    return has(name, "attn_output.weight") || has(name, "attn_o.weight") || has(name, "ffn_down");
}

static int is_embedding(const char *name)
{
    return has(name, "token_embd.") || has(name, "position_embd.") || has(name, "token_types.");
}

static plan all_of(law how, double width)
{
    return (plan){how, {width, width, width}};
}

static plan gpt2_plan(const kh_init_options *o, const kh_slot_tensor *t)
{
    double spread = o->spread > 0 ? o->spread : 0.02;
    int sums = t->layers * t->residuals;
    return all_of(NORMAL, is_residual(t->name) && sums > 0 ? spread / sqrt((double)sums) : spread);
}

static plan lra_plan(const kh_slot_tensor *t)
{
    plan p = {.law = UNIFORM};
    if (has(t->name, "position_embd.")) return all_of(NORMAL, 0.02);
    if (is_embedding(t->name)) return all_of(NORMAL, 1);
    for (int i = 0; i < 3; i++) p.width[i] = sqrt(6.0 / (double)(t->dims[0] + t->rows[i]));
    return p;
}

/* Mesh TensorFlow's: scores are not scaled, so queries begin smaller. The table of distances counts as a
 * projection of the residual stream. */
static plan t5_plan(const kh_description *d, const kh_slot_tensor *t)
{
    double inputs = has(t->name, "attn_rel_b") ? d->D : (double)t->dims[0];
    if (is_embedding(t->name) || strcmp(t->name, "output.weight") == 0) return all_of(NORMAL, 1);
    plan p = all_of(NORMAL, 1 / sqrt(inputs));
    if (has(t->name, "attn_q.") || has(t->name, "attn_qkv.")) p.width[0] /= sqrt((double)d->E);
    return p;
}

kh_status kh_init_check(const char **name, const kh_init_options *o, const kh_family *family)
{
    static const char *const known[] = {"gpt2", "lra", "t5"};
    *name = o->name                               ? o->name
            : strncmp(family->name, "t5", 2) == 0 ? "t5"
            : strcmp(family->name, "lra") == 0    ? "lra"
                                                  : "gpt2";
    if (!(o->spread >= 0 && o->spread < 100))
        KH_FAIL(KH_ERR_ARGUMENT, "init spread: a number from 0 to 100 is expected, found %g",
                o->spread);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(*name, known[i]) == 0) return KH_OK;
    KH_FAIL(KH_ERR_ARGUMENT, "init: \"%.40s\" is not known (gpt2, lra, t5)", *name);
}

static plan plan_of(const kh_init_options *o, const char *name, const kh_description *d,
                    const kh_slot_tensor *t)
{
    if (has(t->name, ".bias")) return all_of(CONSTANT, 0);
    if (has(t->name, "norm")) return all_of(CONSTANT, 1);
    if (o->sinusoids && has(t->name, "position_embd.")) return all_of(SINUSOID, 0);
    if (strcmp(name, "lra") == 0) return lra_plan(t);
    return strcmp(name, "t5") == 0 ? t5_plan(d, t) : gpt2_plan(o, t);
}

/* ---- drawing */

typedef struct drawing {
    float *out;
    plan plan;
    kh_rng_key key;
    size_t count, cols;
    const kh_slot_tensor *tensor;
} drawing;

static double width_at(const drawing *w, size_t i)
{
    const size_t *rows = w->tensor->rows;
    size_t row = i / w->cols % w->tensor->dims[1];
    int part = row < rows[0] ? 0 : row < rows[0] + rows[1] ? 1 : 2;
    return w->plan.width[part];
}

static double sinusoid(size_t position, size_t feature, size_t D)
{
    double rate = pow(10000, -(double)(feature & ~(size_t)1) / (double)D);
    return feature & 1 ? cos((double)position * rate) : sin((double)position * rate);
}

static double draw(const drawing *w, size_t i)
{
    double u = ((double)(kh_rng_bits(w->key, i) >> 12) + 0.5) * 0x1p-52;
    switch (w->plan.law) {
    case CONSTANT: return w->plan.width[0];
    case NORMAL: return width_at(w, i) * normal_of(u);
    case UNIFORM: return width_at(w, i) * (2 * u - 1);
    case SINUSOID: return sinusoid(i / w->cols, i % w->cols, w->cols);
    }
    return 0;
}

static void draw_chunk(void *context, size_t chunk, int worker)
{
    const drawing *w = context;
    size_t first = chunk * CHUNK, last = first + CHUNK < w->count ? first + CHUNK : w->count;
    (void)worker;
    for (size_t i = first; i < last; i++) w->out[i] = (float)draw(w, i);
}

static uint64_t hash_of(const char *name)
{
    uint64_t h = 0xCBF29CE484222325ull; /* FNV-1a */
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001B3ull;
    return h;
}

kh_status kh_init_tensor(float *out, const kh_init_options *o, const kh_family *family,
                         const kh_description *d, const kh_slot_tensor *t, const kh_pool *pool)
{
    const char *name;
    KH_TRY(kh_init_check(&name, o, family));
    drawing w = {.out = out,
                 .plan = plan_of(o, name, d, t),
                 .key = {o->seed, hash_of(t->name)},
                 .count = t->dims[0] * t->dims[1] * t->dims[2],
                 .cols = t->dims[0],
                 .tensor = t};
    kh_parallel_for(pool, (w.count + CHUNK - 1) / CHUNK, draw_chunk, &w);
    if (has(t->name, "token_embd.weight") && o->zero_row > 0 && (size_t)o->zero_row <= t->dims[1])
        memset(out + ((size_t)o->zero_row - 1) * w.cols, 0, w.cols * sizeof *out);
    return KH_OK;
}

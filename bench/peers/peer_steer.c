/*
 * peer_steer: one control vector in keyhole and in llama.cpp, on one model: do the logits move alike?
 *
 *     peer_steer MODEL VECTOR SCALE FIRST LAST TEXT
 *
 * VECTOR is a file that keyhole steer made. llama.cpp gets it through its own reader of GGUF, scaled as its command line
 * does, and through llama_set_adapter_cvec; keyhole through kh_control_open. Then the other way: llama.cpp's writer makes a
 * file with the same directions halved, which keyhole reads. Every line is one comparison: the largest difference of a
 * logit over all positions, and how far the vector itself moves them. The caches of both are f32. `steer` compiles this
 * file; keyhole neither builds nor installs it.
 */
#include <ggml.h>
#include <gguf.h>
#include <keyhole/keyhole.h>
#include <llama.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void quiet(enum ggml_log_level level, const char *text, void *unused)
{
    (void)unused;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static _Noreturn void die(const char *what, const char *which)
{
    fprintf(stderr, "peer_steer: %s: %s\n", what, which);
    exit(1);
}

static void good(kh_status status, const char *what)
{
    if (status != KH_OK) die(what, kh_last_error());
}

typedef struct text {
    int32_t *ids;
    size_t n, V, D;
    int N;
} text;

/* ---- keyhole ---- */

typedef struct rows {
    float *logits; /* [n][V] */
    size_t V;
} rows;

static kh_status keep(void *context, size_t first, size_t count, const float *logits)
{
    const rows *to = context;
    memcpy(to->logits + first * to->V, logits, count * to->V * sizeof *logits);
    return KH_OK;
}

static float *here(const kh_model *model, const text *t, const char *vector, float scale, int first,
                   int last)
{
    const kh_session_options options = {.k_type = KH_CACHE_F32, .v_type = KH_CACHE_F32};
    kh_session *session = NULL;
    kh_steering *steering = NULL;
    kh_control *control = NULL;
    float *logits = calloc(t->n * t->V, sizeof *logits);
    rows all = {logits, t->V};
    const kh_read_options read = {.logits = keep, .logits_context = &all};
    good(kh_session_open(&session, model, &options), "session");
    if (vector) {
        good(kh_control_open(&control, model, vector), "control vector");
        good(kh_steering_open(&steering, model), "steering");
        good(kh_steering_add(steering, control, scale, first, last), "steering");
        kh_session_observe(session, kh_steering_probe(steering));
    }
    good(kh_session_read(session, t->ids, t->n, &read), "read");
    kh_session_close(session);
    kh_steering_close(steering);
    kh_control_close(control);
    return logits;
}

/* ---- llama.cpp ---- */

/* Directions as its command line lays them out: layer 1 first. */
static float *directions(const char *path, const text *t, float scale)
{
    struct ggml_context *data = NULL;
    struct gguf_context *file = gguf_init_from_file(path, (struct gguf_init_params){false, &data});
    float *all = calloc((size_t)t->N * t->D, sizeof *all);
    char name[32];
    if (!file) die("llama.cpp cannot read", path);
    for (int l = 1; l < t->N; l++) {
        snprintf(name, sizeof name, "direction.%d", l);
        struct ggml_tensor *d = ggml_get_tensor(data, name);
        if (!d) continue;
        const float *from = ggml_get_data_f32(d);
        for (size_t i = 0; i < t->D; i++) all[(size_t)(l - 1) * t->D + i] += scale * from[i];
    }
    gguf_free(file);
    ggml_free(data);
    return all;
}

static float *there(struct llama_model *model, const text *t, const char *vector, float scale,
                    int first, int last)
{
    struct llama_context_params p = llama_context_default_params();
    p.n_ctx = (uint32_t)(t->n + 255) / 256 * 256;
    p.n_batch = p.n_ubatch = (uint32_t)t->n;
    p.type_k = p.type_v = GGML_TYPE_F32;
    p.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    struct llama_context *ctx = llama_init_from_model(model, p);
    if (!ctx) die("llama.cpp cannot open", "a context");
    if (vector) {
        float *all = directions(vector, t, scale);
        if (llama_set_adapter_cvec(ctx, all, (size_t)(t->N - 1) * t->D, (int32_t)t->D,
                                   first > 0 ? first : 1, last > 0 ? last : t->N))
            die("llama.cpp refuses", vector);
        free(all);
    }
    struct llama_batch batch = llama_batch_init((int)t->n, 0, 1);
    batch.n_tokens = (int)t->n;
    for (size_t i = 0; i < t->n; i++) {
        batch.token[i] = t->ids[i];
        batch.pos[i] = (int)i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    if (llama_decode(ctx, batch) != 0) die("llama.cpp cannot decode", "the text");
    float *logits = malloc(t->n * t->V * sizeof *logits);
    memcpy(logits, llama_get_logits(ctx), t->n * t->V * sizeof *logits);
    llama_batch_free(batch);
    llama_free(ctx);
    return logits;
}

/* The directions halved, written by llama.cpp. */
static void write_there(const char *path, const char *from, const text *t)
{
    float *all = directions(from, t, 0.5f);
    size_t size = (size_t)t->N * (t->D * sizeof(float) + ggml_tensor_overhead() + 64);
    struct ggml_context *ctx = ggml_init((struct ggml_init_params){size, NULL, false});
    struct gguf_context *file = gguf_init_empty();
    char name[32];
    gguf_set_val_str(file, "general.architecture", "controlvector");
    gguf_set_val_str(file, "controlvector.model_hint", "llama");
    gguf_set_val_i32(file, "controlvector.layer_count", t->N - 1);
    for (int l = 1; l < t->N; l++) {
        struct ggml_tensor *d = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, (int64_t)t->D);
        snprintf(name, sizeof name, "direction.%d", l);
        ggml_set_name(d, name);
        memcpy(d->data, all + (size_t)(l - 1) * t->D, t->D * sizeof *all);
        gguf_add_tensor(file, d);
    }
    if (!gguf_write_to_file(file, path, false)) die("llama.cpp cannot write", path);
    gguf_free(file);
    ggml_free(ctx);
    free(all);
}

static void compare(const char *what, const float *a, const float *b, const text *t)
{
    double most = 0, sum = 0;
    size_t same = 0;
    for (size_t r = 0; r < t->n; r++) {
        const float *x = a + r * t->V, *y = b + r * t->V;
        size_t best_x = 0, best_y = 0;
        for (size_t i = 0; i < t->V; i++) {
            double gap = fabs((double)x[i] - (double)y[i]);
            if (gap > most) most = gap;
            sum += gap;
            if (x[i] > x[best_x]) best_x = i;
            if (y[i] > y[best_y]) best_y = i;
        }
        same += best_x == best_y;
    }
    printf("%-44s largest %-10.3g mean %-10.3g same top token %zu of %zu\n", what, most,
           sum / ((double)t->n * (double)t->V), same, t->n);
}

int main(int argc, char **argv)
{
    if (argc != 7) die("usage", "peer_steer MODEL VECTOR SCALE FIRST LAST TEXT");
    float scale = strtof(argv[3], NULL);
    int first = (int)strtol(argv[4], NULL, 10), last = (int)strtol(argv[5], NULL, 10);
    kh_model *model = NULL;
    text t = {0};
    char made[512];
    good(kh_model_open(&model, argv[1]), "model");
    good(kh_model_tokenize(model, argv[6], strlen(argv[6]), KH_TEXT_EDGES, &t.ids, &t.n), "text");
    const kh_model_info *info = kh_model_get_info(model);
    t.V = (size_t)info->vocabulary, t.D = (size_t)info->width, t.N = info->layers;
    llama_log_set(quiet, NULL);
    llama_backend_init();
    struct llama_model *peer = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!peer) die("llama.cpp cannot load", argv[1]);

    float *base = here(model, &t, NULL, 0, 0, 0), *peer_base = there(peer, &t, NULL, 0, 0, 0);
    float *ours = here(model, &t, argv[2], scale, first, last);
    float *theirs = there(peer, &t, argv[2], scale, first, last);
    compare("without: keyhole, llama.cpp", base, peer_base, &t);
    compare("with: keyhole, llama.cpp", ours, theirs, &t);
    compare("keyhole: without, with", base, ours, &t);
    snprintf(made, sizeof made, "%s.made-by-llama.cpp", argv[2]);
    write_there(made, argv[2], &t);
    free(ours);
    free(theirs);
    ours = here(model, &t, made, 2 * scale, first, last);
    theirs = there(peer, &t, made, 2 * scale, first, last);
    compare("with a file of llama.cpp: keyhole, llama.cpp", ours, theirs, &t);
    remove(made);
    return 0;
}

/*
 * peer_logits: llama.cpp's logits at every position of a list of token ids.
 *
 * It exists so that both engines are judged on the same ids: llama-perplexity tokenizes by itself,
 * keeps 16-bit log-probabilities and scores only the second half of a window. `kl` compiles this
 * file against the peer's header and shared library; keyhole neither builds nor installs it.
 *
 *     peer_logits MODEL IDS OUT THREADS FLASH BATCH
 *
 * IDS is a file of int32 token ids, OUT becomes float32 [T][V] in row order without a header, FLASH
 * is 0 or 1. The context is T rounded up to 256, the cache is f16, and BATCH (both the logical and
 * the physical batch) bounds the logits held at once: 512 rows of Gemma's vocabulary are 512 MB.
 */
#include <llama.h>
#include <stdio.h>
#include <stdlib.h>

static void quiet(enum ggml_log_level level, const char *text, void *unused)
{
    (void)unused;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static _Noreturn void die(const char *what, const char *which)
{
    fprintf(stderr, "peer_logits: %s: %s\n", what, which);
    exit(1);
}

/* A number from the command line, at least `least`. */
static int number(const char *text, int least)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || value < least || value > 1 << 20)
        die("not a number in range", text);
    return (int)value;
}

/* The ids of a file; the caller frees them. */
static llama_token *read_ids(const char *path, int *n)
{
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0) die("cannot read", path);
    long bytes = ftell(f);
    rewind(f);
    llama_token *ids = malloc((size_t)bytes + 1);
    if (!ids || bytes < (long)sizeof *ids || bytes % (long)sizeof *ids != 0 ||
        fread(ids, 1, (size_t)bytes, f) != (size_t)bytes)
        die("not a list of int32 token ids", path);
    fclose(f);
    *n = (int)(bytes / (long)sizeof *ids);
    return ids;
}

static struct llama_context *open_context(struct llama_model *model, int n, int threads, int flash,
                                          int batch)
{
    struct llama_context_params p = llama_context_default_params();
    p.n_ctx = (uint32_t)(n + 255) / 256 * 256;
    p.n_batch = p.n_ubatch = (uint32_t)batch;
    p.n_threads = p.n_threads_batch = threads;
    p.flash_attn_type = flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    return llama_init_from_model(model, p);
}

int main(int argc, char **argv)
{
    if (argc != 7) die("usage", "peer_logits MODEL IDS OUT THREADS FLASH BATCH");
    int n, step = number(argv[6], 1);
    llama_token *ids = read_ids(argv[2], &n); /* [n] */
    llama_log_set(quiet, NULL);
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) die("cannot load", argv[1]);
    struct llama_context *ctx = open_context(model, n, number(argv[4], 1), number(argv[5], 0),
                                             step);
    FILE *out = fopen(argv[3], "wb");
    if (!ctx || !out) die("cannot open a context, or", argv[3]);

    size_t vocab = (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model));
    struct llama_batch batch = llama_batch_init(step, 0, 1);
    for (int at = 0; at < n; at += step) {
        batch.n_tokens = n - at < step ? n - at : step;
        for (int i = 0; i < batch.n_tokens; i++) {
            batch.token[i] = ids[at + i];
            batch.pos[i] = at + i;
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i] = 1;
        }
        if (llama_decode(ctx, batch) != 0) die("cannot decode", argv[2]);
        size_t rows = (size_t)batch.n_tokens;
        if (fwrite(llama_get_logits(ctx), vocab * sizeof(float), rows, out) != rows)
            die("cannot write", argv[3]);
    }
    if (fclose(out) != 0) die("cannot write", argv[3]);
    llama_batch_free(batch);
    llama_free(ctx);
    llama_model_free(model);
    free(ids);
    return 0;
}

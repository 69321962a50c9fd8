/* keyhole embed: texts to vectors, one a line.
 *
 * Texts are the words of the command line, or the lines of a file. They are tokenised first, all of them, so
 * that a text that is too long is named before anything is computed; then short ones share passes. A text is
 * cut only where that was asked for, since a vector of half a text looks like one of the whole. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <string.h>

static const char *const poolings[] = {"model", "mean", "cls", "last", NULL}; /* as kh_pooling */

typedef struct texts {
    kh_buf memory;          /* of the file */
    kh_encoder_text *items; /* [count] */
    size_t count, room, cut;
} texts;

static void texts_free(texts *t)
{
    for (size_t i = 0; i < t->count; i++) kh_free_ids((int32_t *)(uintptr_t)t->items[i].ids);
    kh_free(t->items);
    kh_buf_free(&t->memory);
}

/* The last token, which ends a text for most models, stays where the middle is cut. */
static void cut(kh_encoder_text *text, int32_t *ids, size_t longest)
{
    ids[longest - 1] = ids[text->count - 1];
    text->count = longest;
}

static kh_status add_text(texts *t, const kh_model *model, const cli_args *args, const char *text,
                          size_t size)
{
    size_t longest = args->context ? (size_t)args->context
                                   : (size_t)kh_model_get_info(model)->context;
    KH_TRY(kh_grow(&t->items, t->count, &t->room, sizeof *t->items, "the texts"));
    int32_t *ids = NULL;
    kh_encoder_text one = {0};
    KH_TRY(kh_model_tokenize(model, text, size, KH_TEXT_EDGES, &ids, &one.count));
    one.ids = ids;
    t->items[t->count++] = one;
    if (one.count == 0) KH_FAIL(KH_ERR_ARGUMENT, "text %zu is empty", t->count);
    if (one.count > longest && !args->truncate)
        KH_FAIL(KH_ERR_CONTEXT,
                "text %zu has %zu tokens, at most %zu are read (--truncate cuts it, -c N with "
                "--longer allows more where positions are not learned)",
                t->count, one.count, longest);
    if (one.count > longest) {
        cut(&t->items[t->count - 1], ids, longest);
        t->cut++;
    }
    return KH_OK;
}

static kh_status add_lines(texts *t, const kh_model *model, const cli_args *args)
{
    KH_TRY(cli_read_file(&t->memory, args->file));
    const char *at = t->memory.data, *end = at + t->memory.size;
    while (at < end) {
        const char *line = memchr(at, '\n', (size_t)(end - at));
        size_t size = (size_t)((line ? line : end) - at);
        size_t text = size > 0 && at[size - 1] == '\r' ? size - 1 : size;
        if (text > 0) KH_TRY(add_text(t, model, args, at, text));
        at += size + 1;
    }
    return KH_OK;
}

static kh_status gather(texts *t, const kh_model *model, const cli_args *args, const char **words,
                        size_t count)
{
    if (args->file) KH_TRY(add_lines(t, model, args));
    if (args->prompt) KH_TRY(add_text(t, model, args, args->prompt, strlen(args->prompt)));
    for (size_t i = 0; i < count; i++) KH_TRY(add_text(t, model, args, words[i], strlen(words[i])));
    if (t->count == 0)
        KH_FAIL(KH_ERR_ARGUMENT,
                "there is no text: give texts as words, or a file with one a line (-f FILE)");
    if (t->cut > 0) cli_note("%zu of %zu texts were cut", t->cut, t->count);
    return KH_OK;
}

static kh_status print_json(const cli_args *args, const kh_model *model, const texts *t,
                            const float *vectors)
{
    size_t D = (size_t)kh_model_get_info(model)->width;
    json_t *list = json_array(), *tokens = json_array();
    kh_status status = list && tokens ? KH_OK : kh_fail(KH_ERR_MEMORY, "no memory for the output");
    for (size_t i = 0; i < t->count && status == KH_OK; i++) {
        json_t *one = json_array();
        for (size_t c = 0; c < D && status == KH_OK; c++)
            status = cli_json_add(one, wire_real((double)vectors[i * D + c]));
        if (status == KH_OK) status = cli_json_add(list, one);
        if (status == KH_OK)
            status = cli_json_add(tokens, json_integer((json_int_t)t->items[i].count));
    }
    if (status != KH_OK) {
        json_decref(list);
        json_decref(tokens);
        return status;
    }
    return cli_json_print(json_pack("{s:s, s:s, s:b, s:I, s:o, s:o}", "model",
                                    kh_model_get_info(model)->name, "pooling",
                                    poolings[args->pooling], "normalised", !args->no_normalise,
                                    "width", (json_int_t)D, "tokens", tokens, "embeddings", list));
}

static kh_status print_rows(const float *vectors, size_t count, size_t D)
{
    for (size_t i = 0; i < count && !cli_out_closed(); i++)
        for (size_t c = 0; c < D; c++)
            cli_out(c + 1 < D ? "%.7g " : "%.7g\n", (double)vectors[i * D + c]);
    return KH_OK;
}

static kh_status embed(const kh_model *model, const cli_args *args, const texts *t)
{
    size_t D = (size_t)kh_model_get_info(model)->width;
    kh_encoder_options options = cli_encoder_options(args);
    kh_encoder *encoder = NULL;
    float *vectors = NULL;
    kh_status status = kh_encoder_open(&encoder, model, &options);
    if (status == KH_OK) status = kh_new(&vectors, t->count * D, sizeof *vectors, "the vectors");
    if (status == KH_OK)
        status = kh_encoder_embed(encoder, vectors, t->items, t->count, (kh_pooling)args->pooling,
                                  !args->no_normalise);
    if (status == KH_OK)
        status = args->json ? print_json(args, model, t, vectors)
                            : print_rows(vectors, t->count, D);
    kh_free(vectors);
    kh_encoder_close(encoder);
    return status;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    cli_take_model(args, &words, &count);
    kh_model *model = NULL;
    texts t = {0};
    KH_TRY(cli_model_open(&model, args, 0));
    kh_status status = KH_OK;
    if (kh_model_get_kind(model) == KH_MODEL_DECODER)
        status = kh_fail(KH_ERR_UNSUPPORTED,
                         "%s: a %s model is a decoder: it has no embeddings of texts", args->model,
                         kh_model_get_info(model)->architecture);
    if (status == KH_OK) status = gather(&t, model, args, words, count);
    if (status == KH_OK) status = embed(model, args, &t);
    texts_free(&t);
    kh_model_close(model);
    return status;
}

static const kh_opt input[] = {
    CLI_TEXT(prompt, "-p --prompt", "TEXT", "a text, beside those that are words", NULL),
    CLI_TEXT(file, "-f --file", "FILE", "texts, one a line; - is standard input", NULL),
    CLI_FLAG(truncate, "--truncate", "cuts texts that are too long instead of refusing them"),
    CLI_CHOICE(pooling, "--pooling", "HOW",
               "how rows become a vector: as the file says (model), their mean, the first (cls) or "
               "the last",
               "model", poolings, NULL),
    CLI_FLAG(no_normalise, "--no-normalize --no-normalise",
             "leaves vectors as long as they are; else their length is 1"),
    CLI_END};
static const kh_opt output[] = {
    CLI_FLAG(json, "--json",
             "prints {model, pooling, normalised, width, tokens, embeddings: [[...], ...]}"),
    CLI_FLAG(quiet, "-q --quiet", "nothing on standard error"), CLI_END};
static const kh_opt_group groups[] = {
    {"Model", cli_options_model},     {"Input", input},   {"Attention", cli_options_encoder},
    {"Feed-forward", cli_options_ff}, {"Output", output}, CLI_NO_GROUP};

const cli_verb cli_verb_embed = {
    .group = "Use",
    .command = {.name = "embed",
                .does = "texts to vectors",
                .words = "[MODEL] [TEXT...]",
                .most_words = (size_t)-1,
                .about = "Prints one vector a text, as an encoder (BERT, RoBERTa, nomic, the "
                         "encoder of T5) makes it: numbers with blanks between, one text a line. "
                         "Vectors have length 1, so their products are cosines.",
                .example = "keyhole embed -m minilm.gguf \"a cat on a mat\" \"a feline on a rug\"\n"
                           "keyhole embed -m minilm.gguf -f sentences.txt --json >vectors.json",
                .groups = groups},
    .run = run,
};

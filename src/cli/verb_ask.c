/* keyhole ask: a question about a document.
 *
 * One user message: the document first, the question last, so that everything up to the question is
 * the same for every question. That prefix is found by rendering the message with two different
 * questions; it is read alone, and the session is saved beside the document (or, where that folder
 * cannot be written, under ${XDG_CACHE_HOME:-~/.cache}/keyhole/prompts, named by a hash of the
 * document's path). The next question loads it and reads a few tokens. The file says itself which
 * model and setting it belongs to and which tokens it holds, so a changed document or another model
 * is noticed and the file replaced.
 *
 * With --sources the rows of attention are observed from the last token of the question on: that
 * row chooses the first word of the answer. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SOURCES = 3 };

typedef struct question {
    cli_args *args;
    const kh_model *model;
    kh_buf document;
    const char *text;
    char cache[PATH_MAX]; /* "" without a cache */
    int cache_is_ours;    /* the name was chosen here, so the file may be replaced */
    int32_t *ids;         /* [count] */
    size_t count;
} question;

static kh_status render(const question *q, const char *text, int32_t **ids, size_t *count)
{
    kh_buf message = {0};
    kh_chat_message messages[2];
    size_t n = 0;
    const char *end = q->document.data[q->document.size - 1] == '\n' ? "" : "\n";
    kh_status status =
        kh_buf_format(&message, "Read the document and answer the question at its end.\n\n%s%s\n",
                      q->document.data, end);
    if (status == KH_OK) status = kh_buf_format(&message, "Question: %s", text);
    if (q->args->system) messages[n++] = (kh_chat_message){"system", q->args->system};
    messages[n++] = (kh_chat_message){"user", message.data};
    if (status == KH_OK) status = cli_chat_ids(q->args, q->model, messages, n, ids, count);
    kh_buf_free(&message);
    return status;
}

/* Where the document ends: as far as two different questions give the same ids. */
static kh_status document_end(const question *q, size_t *end)
{
    int32_t *other = NULL;
    size_t count = 0;
    KH_TRY(render(q, q->text[0] == '7' ? "?" : "7", &other, &count));
    *end = cli_common_prefix(q->ids, q->count, other, count);
    kh_free_ids(other);
    return KH_OK;
}

static int folder_is_writable(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (!slash) return access(".", W_OK) == 0;
    size_t n = slash == path ? 1 : (size_t)(slash - path);
    if (n >= sizeof folder) return 0;
    memcpy(folder, path, n);
    folder[n] = 0;
    return access(folder, W_OK) == 0;
}

static int make_folders(char *path)
{
    for (char *c = path + 1; *c; c++) {
        if (*c != '/') continue;
        *c = 0;
        int failed = mkdir(path, 0777) != 0 && errno != EEXIST;
        *c = '/';
        if (failed) return 0;
    }
    return 1;
}

static void choose_cache(question *q)
{
    const cli_args *args = q->args;
    int n = 0, room = (int)sizeof q->cache;
    q->cache_is_ours = !args->prompt_cache;
    if (args->no_prompt_cache || (strcmp(args->file, "-") == 0 && !args->prompt_cache)) return;
    if (args->prompt_cache) {
        n = snprintf(q->cache, sizeof q->cache, "%s", args->prompt_cache);
    } else if (folder_is_writable(args->file)) {
        n = snprintf(q->cache, sizeof q->cache, "%s.keyhole-cache", args->file);
    } else {
        char full[PATH_MAX];
        uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a of the document's path */
        if (!realpath(args->file, full)) return;
        for (const char *c = full; *c; c++) hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
        const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
        if (base && *base)
            n = snprintf(q->cache, sizeof q->cache, "%s/keyhole/prompts/%016" PRIx64, base, hash);
        else if (home && *home)
            n = snprintf(q->cache, sizeof q->cache, "%s/.cache/keyhole/prompts/%016" PRIx64, home,
                         hash);
        if (n > 0 && n < room && !make_folders(q->cache)) n = 0;
    }
    if (n <= 0 || n >= room) q->cache[0] = 0;
}

/* Reads the document, and with --sources all of the question but its last token. */
static kh_status read_document(question *q, cli_answer *answer)
{
    size_t loaded = 0, end = 0;
    if (q->cache[0]) {
        kh_status status = cli_cache_load(answer->session, q->cache, q->ids, q->count, &loaded);
        if (status == KH_ERR_FORMAT && !q->cache_is_ours)
            return kh_fail_context(status, "--prompt-cache %s", q->cache);
        if (status != KH_OK && status != KH_ERR_FORMAT) return status;
        if (status != KH_OK) cli_note("%s; it is replaced", kh_last_error());
    }
    answer->cached_tokens = loaded;
    /* The whole question has to fit; that is refused before a long document is read. */
    int fits = q->count <= kh_session_context(answer->session);
    if (q->cache[0] && fits && (loaded == 0 || loaded < kh_session_length(answer->session))) {
        KH_TRY(document_end(q, &end));
        KH_TRY(cli_answer_read(answer, q->ids, end));
        answer->cached_tokens = loaded;
        if (kh_session_save(answer->session, q->cache) != KH_OK)
            cli_note("the document as read could not be kept: %s", kh_last_error());
    }
    /* The row of the last token chooses the first word of the answer, and is to be observed. */
    size_t known = answer->cached_tokens;
    if (q->args->sources && q->count > 1 && fits)
        KH_TRY(cli_answer_read(answer, q->ids, q->count - 1));
    answer->cached_tokens = known;
    return KH_OK;
}

static void print_sources(const question *q, const cli_source *sources, size_t count)
{
    cli_out("\n");
    if (count == 0) cli_out("The answer read nothing in particular from the document.\n");
    for (size_t i = 0; i < count; i++) {
        cli_out("[%zu] %.0f %% of what was read, most by layer %d head %d (%.2f), bytes %zu-%zu:\n"
                "    ",
                i + 1, 100 * sources[i].weight, sources[i].layer, sources[i].head,
                (double)sources[i].head_weight, sources[i].start, sources[i].end);
        for (size_t at = sources[i].start; at < sources[i].end; at++) {
            char c = q->document.data[at];
            cli_out_bytes(c == '\n' || c == '\r' ? " " : &c, 1);
        }
        cli_out("\n");
    }
}

static json_t *sources_json(const question *q, const cli_source *sources, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count && list; i++) {
        const cli_source *s = sources + i;
        json_t *one = json_pack("{s:o, s:I, s:I, s:o, s:i, s:i}", "text",
                                wire_text(q->document.data + s->start, s->end - s->start), "start",
                                (json_int_t)s->start, "end", (json_int_t)s->end, "weight",
                                wire_real(s->weight), "layer", s->layer, "head", s->head);
        if (json_array_append_new(list, one) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

static kh_status report(const question *q, const cli_answer *answer, const cli_sources *found)
{
    cli_source best[SOURCES];
    size_t count = found ? cli_sources_best(found, best, SOURCES) : 0;
    if (!q->args->json) {
        if (found) print_sources(q, best, count);
        return KH_OK;
    }
    json_t *object = cli_answer_json(answer);
    json_t *list = q->args->sources ? sources_json(q, best, count) : json_null();
    if (object && json_object_set_new(object, "sources", list) != 0) {
        json_decref(object);
        object = NULL;
    }
    return cli_json_print(object);
}

static kh_status answer_question(question *q, kh_session *session)
{
    cli_answer answer = {0};
    cli_sources *sources = NULL;
    kh_status status = cli_answer_open(&answer, q->args, q->model, session);
    double start = cli_seconds(), reading = 0;
    if (status == KH_OK) status = read_document(q, &answer);
    size_t known = answer.cached_tokens < q->count ? answer.cached_tokens : q->count;
    if (status == KH_OK && q->args->sources) {
        kh_status located = cli_sources_open(&sources, q->model, q->ids, q->count, q->document.data,
                                             q->document.size);
        if (located == KH_OK)
            cli_sources_attach(sources, session);
        else if (located == KH_ERR_NOT_FOUND)
            cli_note("no sources: %s", kh_last_error());
        else
            status = located;
    }
    if (status == KH_OK) status = cli_answer_read(&answer, q->ids, q->count);
    reading = cli_seconds() - start;
    if (status == KH_OK) {
        answer.read_seconds = reading;
        answer.cached_tokens = known;
        status = cli_answer_generate(&answer);
        if (status == KH_OK || status == KH_ERR_STOPPED) {
            kh_status printed = report(q, &answer, sources);
            cli_answer_explain(&answer);
            cli_answer_summary(&answer);
            if (status == KH_OK) status = printed;
        }
    }
    kh_session_observe(session, NULL);
    cli_sources_close(sources);
    cli_answer_close(&answer);
    return status;
}

static kh_status prepare(question *q, const char **words, size_t count)
{
    cli_args *args = q->args;
    if (count && !args->prompt) {
        q->text = words[0];
        words++;
        count--;
    } else {
        q->text = args->prompt;
    }
    if (count) KH_FAIL(KH_ERR_ARGUMENT, "'%s': one argument too many", words[0]);
    if (!args->file)
        KH_FAIL(KH_ERR_ARGUMENT, "no document was named: type keyhole ask -m FILE.gguf -f DOCUMENT "
                                 "\"question\"");
    if (!q->text || !*q->text)
        KH_FAIL(KH_ERR_ARGUMENT,
                "the question is empty: type keyhole ask -m FILE.gguf -f %s "
                "\"question\"",
                args->file);
    KH_TRY(cli_read_file(&q->document, args->file));
    if (q->document.size == 0) KH_FAIL(KH_ERR_ARGUMENT, "%s: the document is empty", args->file);
    if (memchr(q->document.data, 0, q->document.size))
        KH_FAIL(KH_ERR_ARGUMENT, "%s: a text is expected, found a zero byte", args->file);
    choose_cache(q);
    return KH_OK;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    /* With one word and no -m, the word is the model and the question is missing. */
    cli_take_model(args, &words, &count);
    question q = {.args = args};
    kh_model *model = NULL;
    kh_session *session = NULL;
    kh_status status = args->model ? prepare(&q, words, count) : KH_OK;
    if (status == KH_OK) status = cli_model_open(&model, args, 0);
    q.model = model;
    if (status == KH_OK) status = render(&q, q.text, &q.ids, &q.count);
    if (status == KH_OK) status = cli_session_open(&session, model, args, args->attn);
    if (status == KH_OK) status = answer_question(&q, session);
    cli_session_close(session);
    kh_free_ids(q.ids);
    kh_model_close(model);
    kh_buf_free(&q.document);
    return status;
}

static void preset(void *values)
{
    cli_args *args = values;
    args->temp = 0;
}

static const kh_opt input[] = {
    CLI_TEXT(file, "-f --file", "FILE", "the document, a text file; - is standard input", NULL),
    CLI_TEXT(prompt, "-p --prompt", "TEXT", "the question, instead of the last word", NULL),
    CLI_FLAG(sources, "--sources", "prints the passages that the answer's attention read"),
    CLI_TEXT(prompt_cache, "--prompt-cache", "FILE",
             "keeps the document as read here, not beside the document", NULL),
    CLI_FLAG(no_prompt_cache, "--no-prompt-cache", "keeps nothing"),
    CLI_END};

static const kh_opt_group groups[] = {
    {"Model", cli_options_model},
    {"Document and question", input},
    {"Chat format", cli_options_template},
    {"Answer", cli_options_answer},
    {"Attention", cli_options_attn},
    {"Context", cli_options_context},
    {"Computation", cli_options_compute},
    {"Sampling (here --temp is 0 unless given)", cli_options_sampling},
    {"Output", cli_options_output_answer},
    {"Known from llama.cpp", cli_options_known},
    CLI_NO_GROUP};

const cli_verb cli_verb_ask = {
    .group = "Use",
    .command = {.name = "ask",
                .does = "a question about a document, with sources",
                .words = "[MODEL] QUESTION",
                .most_words = 2,
                .about =
                    "Reads a document, keeps it as read in DOCUMENT.keyhole-cache (or in "
                    "~/.cache/keyhole/prompts where that folder cannot be written), and answers a "
                    "question about it. The next question about the same document begins to be "
                    "answered at once. Takes the likeliest tokens unless --temp is given.\n\n"
                    "--sources names the passages that the answer was read from: of every "
                    "attention row of the answer, the weights above 0.1 on tokens of the document "
                    "are added up per sentence. It says what the model looked at, not whether the "
                    "answer is right.\n\nWith --json the object is that of keyhole run, with "
                    "\"sources\": [{text, start, end, weight, layer, head}], bytes of the "
                    "document.",
                .example = "keyhole ask -m model.gguf -f report.txt \"Who signed it?\" --sources",
                .groups = groups,
                .preset = preset},
    .run = run,
};

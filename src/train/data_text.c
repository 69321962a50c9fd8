/* Texts as documents of tokens.
 *
 *     text           [bos] text [eos]                   every id but the first is predicted
 *     completion     [bos] prompt completion [eos]      the ids behind the prompt are
 *     conversation   as the template writes it          the answers are (data_chat.c)
 *
 * A prompt and its completion are tokenised as one text, as a model reads them later, so an id may
 * reach over the border. The prompt's own ids are compared with those of the whole: where the two lists
 * part the loss begins, and an id that reaches over the border belongs to the completion.
 *
 * A document of ids i(0) .. i(n) has n rows: row t holds i(t) and has to predict i(t + 1). Ids behind the
 * last predicted one are dropped, they would be computed for nothing.
 *
 * What a line of JSON is shows by its members, so files of several kinds can be mixed. Markers inside
 * texts stay text unless asked for: a page that quotes <|im_end|> does not end a turn. */
#include "train/data_impl.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "format/json.h"

#include <string.h>

typedef struct text_source {
    kh_source base;
    kh_data_files files;
    const kh_tokenizer *tokenizer;
    kh_source_options options;
    char *strings[3]; /* copies of what the options point to */
    kh_document document;
    kh_tokens targets;
} text_source;

kh_status kh_document_mark(kh_document *document, size_t start, size_t end)
{
    size_t n = document->ids.count;
    KH_TRY(kh_buf_reserve(&document->loss, n));
    if (document->loss.size < n) {
        memset(document->loss.data + document->loss.size, 0, n - document->loss.size);
        document->loss.size = n;
    }
    if (start < end) memset(document->loss.data + start, 1, end - start);
    return KH_OK;
}

size_t kh_ids_common(const kh_tokens *a, const kh_tokens *b)
{
    size_t n = 0;
    while (n < a->count && n < b->count && a->ids[n] == b->ids[n]) n++;
    return n;
}

static int32_t first_of(int32_t id, int32_t other)
{
    return id >= 0 ? id : other;
}

/* Whether an edge is written by us; checked when the source is opened. */
static kh_status edge_id(const kh_tokenizer *tokenizer, kh_edge edge, int ends, int by_itself,
                         int32_t *id)
{
    const kh_special_ids *special = kh_tokenizer_special(tokenizer);
    int32_t known = ends ? first_of(special->eos, special->sep)
                         : first_of(special->bos, special->cls);
    *id = -1;
    if (edge == KH_EDGE_OMIT || (edge == KH_EDGE_DEFAULT && !by_itself)) return KH_OK;
    if (known < 0 && edge == KH_EDGE_ADD)
        KH_FAIL(KH_ERR_ARGUMENT, "the tokenizer has no %s token to put at the %s of documents",
                ends ? "eos" : "bos", ends ? "end" : "start");
    *id = known;
    return KH_OK;
}

static kh_status text_ids(const text_source *s, kh_tokens *out, const char *text, size_t size,
                          unsigned flags)
{
    if (s->options.markers == KH_MARKERS_ARE_TOKENS) flags |= KH_TOKENIZE_SPECIAL;
    return kh_tokenize(s->tokenizer, out, text, size, flags);
}

static kh_status read_text(text_source *s, kh_slice text, int head, int tail)
{
    const kh_special_ids *special = kh_tokenizer_special(s->tokenizer);
    kh_tokens *ids = &s->document.ids;
    kh_edge bos = s->options.bos, eos = s->options.eos;
    if (head && tail && bos == KH_EDGE_DEFAULT && eos == KH_EDGE_DEFAULT && text.size) {
        KH_TRY(text_ids(s, ids, text.data, text.size, KH_TOKENIZE_EDGES));
    } else {
        int32_t first, last;
        KH_TRY(edge_id(s->tokenizer, head ? bos : KH_EDGE_OMIT, 0, special->add_bos, &first));
        KH_TRY(edge_id(s->tokenizer, tail ? eos : KH_EDGE_OMIT, 1, special->add_eos, &last));
        if (!text.size) return KH_OK;
        if (first >= 0) KH_TRY(kh_tokens_add(ids, first));
        KH_TRY(text_ids(s, ids, text.data, text.size, 0));
        if (last >= 0) KH_TRY(kh_tokens_add(ids, last));
    }
    return kh_document_mark(&s->document, 0, ids->count);
}

static kh_status read_completion(text_source *s, const json_t *prompt, const json_t *completion)
{
    const kh_special_ids *special = kh_tokenizer_special(s->tokenizer);
    kh_tokens *ids = &s->document.ids, front = {0};
    kh_buf whole = {0};
    int32_t first, last;
    KH_TRY(edge_id(s->tokenizer, s->options.bos, 0, special->add_bos, &first));
    KH_TRY(edge_id(s->tokenizer, s->options.eos, 1, 1, &last));
    size_t size = json_string_length(prompt);
    kh_status status = kh_buf_add(&whole, json_string_value(prompt), size);
    if (status == KH_OK)
        status = kh_buf_add(&whole, json_string_value(completion), json_string_length(completion));
    if (status == KH_OK && first >= 0) status = kh_tokens_add(&front, first);
    if (status == KH_OK && first >= 0) status = kh_tokens_add(ids, first);
    if (status == KH_OK) status = text_ids(s, &front, whole.data, size, 0);
    if (status == KH_OK) status = text_ids(s, ids, whole.data, whole.size, 0);
    size_t common = kh_ids_common(&front, ids);
    if (status == KH_OK && last >= 0) status = kh_tokens_add(ids, last);
    if (status == KH_OK) status = kh_document_mark(&s->document, common, ids->count);
    kh_buf_free(&whole);
    kh_tokens_free(&front);
    return status;
}

static kh_status read_object(text_source *s, const json_t *line)
{
    const json_t *messages = kh_json_get(line, "messages"), *text = kh_json_get(line, "text");
    const json_t *prompt = kh_json_get(line, "prompt"), *answer = kh_json_get(line, "completion");
    if (!json_is_object(line))
        KH_FAIL(KH_ERR_FORMAT, "an object is expected, found %s", kh_json_kind(line));
    if (messages)
        return kh_document_chat(&s->document, s->tokenizer, &s->options, messages,
                                kh_json_get(line, "tools"));
    if (prompt || answer) {
        if (!json_is_string(prompt) || !json_is_string(answer))
            KH_FAIL(KH_ERR_FORMAT,
                    "\"prompt\" and \"completion\" are expected to be strings, found %s and %s",
                    kh_json_kind(prompt), kh_json_kind(answer));
        return read_completion(s, prompt, answer);
    }
    if (!text)
        KH_FAIL(KH_ERR_FORMAT, "\"text\", \"prompt\" and \"completion\", or \"messages\" are "
                               "expected, found none of them");
    if (!json_is_string(text))
        KH_FAIL(KH_ERR_FORMAT, "\"text\" is expected to be a string, found %s", kh_json_kind(text));
    return read_text(s, (kh_slice){json_string_value(text), json_string_length(text)}, 1, 1);
}

static kh_status read_line(text_source *s, size_t place, const char *path, kh_slice text)
{
    json_t *line;
    kh_status status = kh_json_parse(&line, text.data, text.size, "the object");
    if (status == KH_OK) status = read_object(s, line);
    json_decref(line);
    if (status != KH_OK)
        kh_fail_context(status, "%s: line %zu", path, kh_data_files_line(&s->files, place));
    return status;
}

/* Rows of the document: up to the last id that is predicted. */
static kh_status as_rows(text_source *s, kh_train_example *out)
{
    const kh_document *d = &s->document;
    size_t n = d->ids.count;
    while (n > 1 && !d->loss.data[n - 1]) n--;
    s->targets.count = 0;
    for (size_t t = 1; t < n; t++)
        KH_TRY(kh_tokens_add(&s->targets, d->loss.data[t] ? d->ids.ids[t] : -1));
    *out = (kh_train_example){
        .tokens = d->ids.ids, .targets = s->targets.ids, .n = s->targets.count, .label = -1};
    return KH_OK;
}

static kh_status text_get(kh_source *source, uint64_t index, size_t start, size_t most,
                          kh_train_example *out)
{
    text_source *s = (text_source *)source;
    const kh_data_place *place = &s->files.places[index];
    const kh_data_file *file = &s->files.list[place->file];
    kh_slice text;
    (void)start, (void)most;
    s->document.ids.count = 0;
    kh_buf_clear(&s->document.loss);
    KH_TRY(kh_data_files_read(&s->files, index, &text));
    if (file->format == KH_SOURCE_JSONL)
        KH_TRY(read_line(s, index, file->path, text));
    else
        KH_TRY(read_text(s, text, place->head, place->tail));
    kh_map_release(&s->files.map, place->start, place->size);
    return as_rows(s, out);
}

static void text_close(kh_source *source)
{
    text_source *s = (text_source *)source;
    kh_data_files_close(&s->files);
    kh_tokens_free(&s->document.ids);
    kh_buf_free(&s->document.loss);
    kh_tokens_free(&s->targets);
    for (size_t i = 0; i < sizeof s->strings / sizeof s->strings[0]; i++) kh_free(s->strings[i]);
}

static kh_status keep_strings(text_source *s)
{
    const char **from[] = {&s->options.separator, &s->options.chat_format,
                           &s->options.chat_template};
    for (size_t i = 0; i < sizeof from / sizeof from[0]; i++) {
        if (!*from[i]) continue;
        s->strings[i] = kh_strdup(*from[i]);
        if (!s->strings[i]) KH_FAIL(KH_ERR_MEMORY, "no memory for the options of a source");
        *from[i] = s->strings[i];
    }
    return KH_OK;
}

static void add_text(uint64_t *digest, const char *text)
{
    kh_digest_add(digest, text ? text : "", text ? strlen(text) + 1 : 0);
}

static uint64_t digest_of(const text_source *s)
{
    const kh_source_options *o = &s->options;
    const uint64_t numbers[] = {(uint64_t)o->bos,     (uint64_t)o->eos, (uint64_t)o->markers,
                                (uint64_t)o->answers, o->piece,         (uint64_t)o->chat_time};
    uint64_t digest = 0;
    kh_digest_add(&digest, numbers, sizeof numbers);
    add_text(&digest, o->separator);
    add_text(&digest, o->chat_format);
    add_text(&digest, o->chat_template);
    for (size_t i = 0; i < s->files.count; i++)
        kh_digest_add(&digest, &s->files.list[i].size, sizeof s->files.list[i].size);
    return digest;
}

static kh_status set_up(text_source *s)
{
    int32_t id;
    KH_TRY(keep_strings(s));
    KH_TRY(edge_id(s->tokenizer, s->options.bos, 0, 0, &id));
    KH_TRY(edge_id(s->tokenizer, s->options.eos, 1, 0, &id));
    KH_TRY(kh_data_files_scan(&s->files, s->options.separator, s->options.piece));
    s->base.count = s->files.place_count;
    s->base.files = s->files.count;
    s->base.digest = digest_of(s);
    for (size_t i = 0; i < s->files.count; i++)
        if (s->files.list[i].format == KH_SOURCE_JSONL) s->base.masked = 1;
    if (!s->base.count) KH_FAIL(KH_ERR_ARGUMENT, "%s: there is no document in it", s->base.name);
    return KH_OK;
}

kh_status kh_source_open_texts(kh_source **out, kh_data_files *files, const kh_tokenizer *tokenizer,
                               const kh_source_options *options)
{
    static const kh_source_kind kind = {text_get, NULL, text_close};
    text_source *s;
    *out = NULL;
    kh_status status = kh_source_new(&s, sizeof *s, &kind, files->list[0].path);
    if (status != KH_OK) {
        kh_data_files_close(files);
        return status;
    }
    s->files = *files;
    *files = (kh_data_files){0};
    s->tokenizer = tokenizer;
    s->options = *options;
    status = set_up(s);
    if (status != KH_OK) {
        kh_source_close(&s->base);
        return status;
    }
    *out = &s->base;
    return KH_OK;
}

/* Conversations as documents of tokens: which of the ids are answers.
 *
 * A template is a program; nothing in its output says where an answer begins. What is known is how the
 * model will be used: a conversation that ends with the head of an answer is its prompt, and the answer
 * is what follows. So the conversation is rendered in prefixes:
 *
 *     P = messages before an answer, with the head of an answer   <|im_start|>assistant\n
 *     F = messages up to and with the answer                      ... Hello!<|im_end|>\n
 *     whole = messages up to the last answer                      ...
 *
 * P must be the beginning of the whole, and F up to the end of the answer's words (a template may end
 * every text with the head of an answer); then the ids at which P, F and the whole part are the
 * borders of the answer, and the head, which the prompt gives, is not learned. The end marker of the
 * turn is, because a model has to stop; what the template writes behind it is not. Ids that the whole
 * shares with P are counted rather than bytes: a token may reach over the border, and is the answer's.
 *
 * Templates exist that write an earlier answer differently once the conversation goes on (thoughts are
 * dropped), or open an answer with words that the written answer does not have. For them no rows of
 * the whole are what the model will see, and the line is refused: with `answers` = LAST only the last
 * answer has to fit, and that is how such conversations are given, one line for each answer.
 *
 * Cost: two renderings and tokenisations for each answer. The clock is not asked: a template that
 * prints the date gets that of the options, so that a run can be repeated. */
#include "base/alloc.h"
#include "base/fail.h"
#include "format/json.h"
#include "gen/chat.h"
#include "jinja/jinja.h"
#include "train/data_impl.h"

#include <string.h>

enum { START_OF_2025 = 1735689600 };

static const char advice[] = "; give one line for each answer, with a loss on the last only";

typedef struct talk {
    const kh_tokenizer *tokenizer;
    const kh_source_options *options;
    const json_t *messages, *tools;
} talk;

/* A rendered conversation. */
typedef struct view {
    kh_buf text, spans;
    kh_tokens ids;
} view;

static void view_free(view *v)
{
    kh_buf_free(&v->text);
    kh_buf_free(&v->spans);
    kh_tokens_free(&v->ids);
}

static kh_status dump(kh_buf *out, const json_t *value)
{
    size_t size = json_dumpb(value, NULL, 0, JSON_ENCODE_ANY | JSON_COMPACT);
    KH_TRY(kh_buf_reserve(out, size));
    out->size = json_dumpb(value, out->data, size, JSON_ENCODE_ANY | JSON_COMPACT);
    if (!size || out->size != size) KH_FAIL(KH_ERR_MEMORY, "no memory for a conversation");
    out->data[size] = 0;
    return KH_OK;
}

/* The first `count` messages as JSON. */
static kh_status dump_messages(kh_buf *out, const json_t *messages, size_t count)
{
    KH_TRY(kh_buf_text(out, "["));
    for (size_t i = 0; i < count; i++) {
        kh_buf one = {0};
        kh_status status = i ? kh_buf_text(out, ",") : KH_OK;
        if (status == KH_OK) status = dump(&one, json_array_get(messages, i));
        if (status == KH_OK) status = kh_buf_add(out, one.data, one.size);
        kh_buf_free(&one);
        KH_TRY(status);
    }
    return kh_buf_text(out, "]");
}

static const char *role_of(const json_t *message)
{
    return json_string_value(json_object_get(message, "role"));
}

static kh_status by_template(const talk *t, view *v, size_t count, int open)
{
    const kh_source_options *o = t->options;
    kh_buf messages = {0}, tools = {0};
    kh_slice template = {o->chat_template, o->chat_template ? strlen(o->chat_template) : 0};
    if (!template.size) template = kh_chat_template(t->tokenizer, NULL, t->tools != NULL);
    if (!template.size)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "\"messages\" need a chat template, and the model has none; a known format can be "
                "named (%s)",
                kh_chat_names());
    kh_status status = dump_messages(&messages, t->messages, count);
    if (status == KH_OK && t->tools) status = dump(&tools, t->tools);
    kh_jinja_input input = {.messages = {messages.data, messages.size},
                            .tools = {tools.data, tools.size},
                            .time = o->chat_time ? o->chat_time : START_OF_2025,
                            .closed = !open};
    if (status == KH_OK)
        status = kh_chat_template_render(t->tokenizer, template, &v->text, &v->spans, &input);
    kh_buf_free(&tools);
    kh_buf_free(&messages);
    return status;
}

static kh_status by_format(const talk *t, view *v, size_t count, int open)
{
    const kh_chat_format *format = kh_chat_by_name(t->options->chat_format);
    kh_chat_message *list;
    if (!format)
        KH_FAIL(KH_ERR_ARGUMENT, "the chat format \"%s\" is not known (%s)",
                t->options->chat_format, kh_chat_names());
    if (t->tools)
        KH_FAIL(KH_ERR_ARGUMENT, "the chat format \"%s\" has no place for \"tools\"",
                t->options->chat_format);
    if (!count) return open ? kh_chat_render(format, &v->text, &v->spans, NULL, 0, 1) : KH_OK;
    KH_TRY(kh_new(&list, count, sizeof *list, "the messages of a conversation"));
    kh_status status = KH_OK;
    for (size_t i = 0; i < count && status == KH_OK; i++) {
        const json_t *message = json_array_get(t->messages, i);
        const json_t *content = kh_json_get(message, "content");
        list[i] = (kh_chat_message){role_of(message), json_string_value(content)};
        if (!list[i].text)
            status = kh_fail(KH_ERR_FORMAT,
                             "message %zu: \"content\" is expected to be a string for the chat "
                             "format \"%s\", found %s",
                             i + 1, t->options->chat_format, kh_json_kind(content));
    }
    if (status == KH_OK) status = kh_chat_render(format, &v->text, &v->spans, list, count, open);
    kh_free(list);
    return status;
}

/* As kh_model_chat_with makes ids: one bos where the tokenizer asks for it. */
static kh_status see(const talk *t, view *v, size_t count, int open)
{
    const kh_special_ids *special = kh_tokenizer_special(t->tokenizer);
    kh_edge edge = t->options->bos;
    kh_buf_clear(&v->text);
    kh_buf_clear(&v->spans);
    v->ids.count = 0;
    KH_TRY(t->options->chat_format ? by_format(t, v, count, open) : by_template(t, v, count, open));
    KH_TRY(kh_chat_tokenize(t->tokenizer, &v->ids, &v->text, &v->spans, 0));
    int asked = edge == KH_EDGE_ADD || (edge == KH_EDGE_DEFAULT && special->add_bos);
    if (!asked || special->bos < 0 || (v->ids.count && v->ids.ids[0] == special->bos)) return KH_OK;
    KH_TRY(kh_tokens_add(&v->ids, special->bos));
    memmove(v->ids.ids + 1, v->ids.ids, (v->ids.count - 1) * sizeof *v->ids.ids);
    v->ids.ids[0] = special->bos;
    return KH_OK;
}

/* How many bytes two texts begin with in common. */
static size_t common(const view *a, const view *b)
{
    size_t n = 0, most = a->text.size < b->text.size ? a->text.size : b->text.size;
    while (n < most && a->text.data[n] == b->text.data[n]) n++;
    return n;
}

/* Behind the last byte that a message said. */
static size_t said(const view *v)
{
    const kh_chat_span *list = (const void *)v->spans.data;
    for (size_t i = v->spans.size / sizeof *list; i-- > 0;)
        if (list[i].from_user) return list[i].start + list[i].size;
    return 0;
}

static int is_answer(const json_t *message)
{
    const char *role = role_of(message);
    return role && strcmp(role, "assistant") == 0;
}

/* Marks message `at`; `part` is scratch. */
static kh_status mark_answer(const talk *t, kh_document *document, const view *whole, view *part,
                             size_t at, int last)
{
    KH_TRY(see(t, part, at, 1));
    size_t head = part->text.size, end = whole->ids.count, exact = 1;
    if (common(whole, part) < head)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "message %zu: the template does not write the answer behind what the model is "
                "shown before it (the head of an answer, or an earlier answer, changes)%s",
                at + 1, last ? "" : advice);
    size_t start = kh_ids_common(&part->ids, &whole->ids);
    if (!last) {
        KH_TRY(see(t, part, at + 1, 0));
        size_t shared = common(whole, part);
        if (shared < head || shared < said(part))
            KH_FAIL(KH_ERR_UNSUPPORTED,
                    "message %zu: the template writes the answer differently when the conversation "
                    "goes on%s",
                    at + 1, advice);
        end = kh_ids_common(&part->ids, &whole->ids);
        exact = shared == part->text.size;
    }
    size_t stop = end;
    while (stop > start && !kh_token_ends(t->tokenizer, whole->ids.ids[stop - 1])) stop--;
    if (stop == start && !exact)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "message %zu: no token ends the answer in what the template "
                "writes%s",
                at + 1, advice);
    return kh_document_mark(document, start, stop > start ? stop : end);
}

static kh_status mark_answers(const talk *t, kh_document *document, view *whole, view *part,
                              size_t count)
{
    KH_TRY(see(t, whole, count, 0));
    for (size_t i = 0; i < whole->ids.count; i++)
        KH_TRY(kh_tokens_add(&document->ids, whole->ids.ids[i]));
    KH_TRY(kh_document_mark(document, 0, 0));
    for (size_t i = 0; i < count; i++)
        if (is_answer(json_array_get(t->messages, i)) &&
            (i + 1 == count || t->options->answers == KH_ANSWERS_ALL))
            KH_TRY(mark_answer(t, document, whole, part, i, i + 1 == count));
    return KH_OK;
}

kh_status kh_document_chat(kh_document *document, const kh_tokenizer *tokenizer,
                           const kh_source_options *options, const json_t *messages,
                           const json_t *tools)
{
    talk t = {tokenizer, options, messages, tools};
    size_t count = 0;
    if (!json_is_array(messages))
        KH_FAIL(KH_ERR_FORMAT, "\"messages\" is expected to be a list, found %s",
                kh_json_kind(messages));
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        if (!role_of(message))
            KH_FAIL(KH_ERR_FORMAT,
                    "message %zu: an object with \"role\" and \"content\" is expected, found %s",
                    i + 1, json_is_object(message) ? "no role" : kh_json_kind(message));
        if (is_answer(message)) count = i + 1;
    }
    if (!count) return kh_document_mark(document, 0, 0); /* nobody answers: no ids, no rows */
    view whole = {0}, part = {0};
    kh_status status = mark_answers(&t, document, &whole, &part, count);
    view_free(&whole);
    view_free(&part);
    return status;
}

/* The public side of chat: a conversation to ids, by the file's own template or by a named format.
 *
 *     messages --(format named)--> chat.c -------------\
 *         \----(else)--> JSON --> chat_template.c -------+--> text and spans --> guarded ids
 *     tools, documents, variables: JSON -----/
 *
 * A template writes its bos itself or leaves it to the tokenizer; the ids begin with exactly one when
 * the file asks for it. No eos is added behind a template's text: what follows is the answer. */
#include "base/buf.h"
#include "base/fail.h"
#include "gen/chat.h"
#include "jinja/jinja.h"
#include "model/network.h"

#include <string.h>

typedef struct talk {
    const kh_model *model;
    const kh_chat_options *options;
    const kh_chat_message *messages;
    size_t count;
} talk;

const char *kh_chat_formats(void)
{
    return kh_chat_names();
}

const char *kh_model_chat_format(const kh_model *model)
{
    kh_slice text = kh_chat_template(model->tokenizer, NULL, 0), eos = {0};
    int32_t id = kh_tokenizer_special(model->tokenizer)->eos;
    const kh_chat_format *format = NULL;
    kh_jinja *template;
    if (!text.size) return "";
    if (id >= 0) eos = kh_token_raw(model->tokenizer, id);
    if (kh_jinja_parse(&template, text) != KH_OK) return "unknown";
    kh_jinja_free(template);
    if (kh_chat_recognise(&format, text, eos) != KH_OK) return "unknown";
    return format ? kh_chat_name(format) : "jinja";
}

static kh_status by_format(const talk *t, kh_buf *text, kh_buf *spans)
{
    const kh_chat_options *o = t->options;
    const kh_chat_format *format = kh_chat_by_name(o->format);
    if (!format)
        KH_FAIL(KH_ERR_ARGUMENT, "the chat format \"%s\" is not known (%s)", o->format,
                kh_chat_names());
    if (o->template_text || o->template_name || o->messages_json || o->tools_json ||
        o->documents_json || o->kwargs_json)
        KH_FAIL(KH_ERR_ARGUMENT,
                "the chat format \"%s\" takes plain messages: a template, tools, documents and "
                "variables need the file's own template",
                o->format);
    return kh_chat_render(format, text, spans, t->messages, t->count, o->end == KH_CHAT_OPEN);
}

static kh_slice json(const char *text)
{
    return text ? (kh_slice){text, strlen(text)} : (kh_slice){0};
}

static kh_status by_template(const talk *t, kh_buf *text, kh_buf *spans)
{
    const kh_chat_options *o = t->options;
    kh_slice template = json(o->template_text);
    kh_jinja_input input = {.messages = json(o->messages_json),
                            .tools = json(o->tools_json),
                            .documents = json(o->documents_json),
                            .kwargs = json(o->kwargs_json),
                            .closed = o->end == KH_CHAT_CLOSED,
                            .time = o->time};
    if (!template.data)
        template = kh_chat_template(t->model->tokenizer, o->template_name, o->tools_json != NULL);
    if (!template.size)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "the file has no chat template%s%s; name a format with --chat-template (%s)",
                o->template_name ? " called " : "", o->template_name ? o->template_name : "",
                kh_chat_names());
    if (o->messages_json ? t->count > 0 : t->count == 0)
        KH_FAIL(KH_ERR_ARGUMENT, o->messages_json
                                     ? "messages are given twice, as an array and as JSON"
                                     : "a conversation has at least one message");
    kh_buf messages = {0};
    kh_status status = KH_OK;
    if (!o->messages_json) {
        status = kh_chat_messages(&messages, t->messages, t->count);
        input.messages = (kh_slice){messages.data, messages.size};
    }
    if (status == KH_OK)
        status = kh_chat_template_render(t->model->tokenizer, template, text, spans, &input);
    kh_buf_free(&messages);
    return status;
}

static kh_status render(const talk *t, kh_buf *text, kh_buf *spans)
{
    return t->options->format ? by_format(t, text, spans) : by_template(t, text, spans);
}

/* The bos that the file asks for, unless the template wrote it. */
static kh_status begin(const kh_tokenizer *tokenizer, kh_tokens *ids)
{
    const kh_special_ids *special = kh_tokenizer_special(tokenizer);
    if (!special->add_bos || special->bos < 0 || (ids->count && ids->ids[0] == special->bos))
        return KH_OK;
    KH_TRY(kh_tokens_add(ids, special->bos));
    memmove(ids->ids + 1, ids->ids, (ids->count - 1) * sizeof *ids->ids);
    ids->ids[0] = special->bos;
    return KH_OK;
}

kh_status kh_model_chat_with(const kh_model *model, const kh_chat_options *options,
                             const kh_chat_message *messages, size_t count, int32_t **ids,
                             size_t *id_count)
{
    static const kh_chat_options defaults = {0};
    talk t = {model, options ? options : &defaults, messages, count};
    kh_buf text = {0}, spans = {0};
    kh_tokens tokens = {0};
    *ids = NULL;
    *id_count = 0;
    kh_status status = render(&t, &text, &spans);
    int format = t.options->format != NULL;
    if (status == KH_OK)
        status = kh_chat_tokenize(model->tokenizer, &tokens, &text, &spans,
                                  format ? KH_TOKENIZE_EDGES : 0);
    if (status == KH_OK && !format) status = begin(model->tokenizer, &tokens);
    kh_buf_free(&spans);
    kh_buf_free(&text);
    if (status != KH_OK) {
        kh_tokens_free(&tokens);
        return status;
    }
    *ids = tokens.ids;
    *id_count = tokens.count;
    return KH_OK;
}

kh_status kh_model_chat_text(const kh_model *model, const kh_chat_options *options,
                             const kh_chat_message *messages, size_t count, char **text,
                             size_t *size)
{
    static const kh_chat_options defaults = {0};
    talk t = {model, options ? options : &defaults, messages, count};
    kh_buf out = {0};
    *text = NULL;
    *size = 0;
    kh_status status = kh_buf_reserve(&out, 0);
    if (status == KH_OK) status = render(&t, &out, NULL);
    if (status != KH_OK) {
        kh_buf_free(&out);
        return status;
    }
    *text = out.data;
    *size = out.size;
    return KH_OK;
}

kh_status kh_model_chat(const kh_model *model, const char *format, const kh_chat_message *messages,
                        size_t count, int32_t **ids, size_t *id_count)
{
    kh_chat_options options = {.format = format};
    return kh_model_chat_with(model, &options, messages, count, ids, id_count);
}

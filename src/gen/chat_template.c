/* A conversation through the model's own template.
 *
 * The template is the one that the file names, or one of several ("default", "tool_use", "rag"), chosen
 * as Hugging Face does. The variables are those of apply_chat_template: messages, tools, documents,
 * add_generation_prompt, the caller's own, and the special tokens as the vocabulary spells them.
 *
 * There is no second way when a template fails: a wrong format makes a model worse in ways that look
 * like the model's fault. The sentence says what the template said, or which line was not understood,
 * and that a format can be named. */
#include "base/fail.h"
#include "format/utf8.h"
#include "gen/chat.h"
#include "jinja/jinja.h"

#include <stdio.h>
#include <string.h>

kh_slice kh_chat_template(const kh_tokenizer *tokenizer, const char *name, int tools)
{
    kh_slice text = {0};
    if (!name && tools) text = kh_tokenizer_chat_template(tokenizer, "tool_use");
    return text.size ? text : kh_tokenizer_chat_template(tokenizer, name);
}

static kh_status add_string(kh_buf *json, const char *text)
{
    kh_buf clean = {0};
    kh_status status = kh_utf8_clean(&clean, text, strlen(text));
    if (status == KH_OK) status = kh_buf_text(json, "\"");
    const char *bytes = clean.data ? clean.data : "";
    for (size_t i = 0, start = 0; status == KH_OK && i <= clean.size; ++i) {
        unsigned char c = i < clean.size ? (unsigned char)bytes[i] : 0;
        if (i < clean.size && c >= 32 && c != '"' && c != '\\') continue;
        status = kh_buf_add(json, bytes + start, i - start);
        start = i + 1;
        if (status == KH_OK && i < clean.size) status = kh_buf_format(json, "\\u%04x", c);
    }
    kh_buf_free(&clean);
    return status == KH_OK ? kh_buf_text(json, "\"") : status;
}

kh_status kh_chat_messages(kh_buf *json, const kh_chat_message *messages, size_t n)
{
    KH_TRY(kh_buf_text(json, "["));
    for (size_t i = 0; i < n; ++i) {
        KH_TRY(kh_buf_text(json, i ? ",{\"role\":" : "{\"role\":"));
        KH_TRY(add_string(json, messages[i].role));
        KH_TRY(kh_buf_text(json, ",\"content\":"));
        KH_TRY(add_string(json, messages[i].text));
        KH_TRY(kh_buf_text(json, "}"));
    }
    return kh_buf_text(json, "]");
}

static kh_status unreadable(kh_status status)
{
    char why[512];
    snprintf(why, sizeof why, "%s", kh_last_error());
    KH_FAIL(status, "%s; name a known format with --chat-template (%s)", why, kh_chat_names());
}

kh_status kh_chat_template_render(const kh_tokenizer *tokenizer, kh_slice text, kh_buf *out,
                                  kh_buf *spans, const struct kh_jinja_input *input)
{
    const kh_special_ids *ids = kh_tokenizer_special(tokenizer);
    const struct {
        const char *name;
        int32_t id;
    } known[] = {{"bos_token", ids->bos},  {"eos_token", ids->eos}, {"unk_token", ids->unk},
                 {"sep_token", ids->sep},  {"pad_token", ids->pad}, {"cls_token", ids->cls},
                 {"mask_token", ids->mask}};
    enum { KNOWN = sizeof known / sizeof known[0] };
    kh_jinja_token tokens[KNOWN];
    kh_jinja_input all = *input;
    kh_jinja *template;
    all.tokens = tokens;
    for (size_t i = 0; i < KNOWN; ++i)
        if (known[i].id >= 0)
            tokens[all.token_count++] = (kh_jinja_token){known[i].name,
                                                         kh_token_raw(tokenizer, known[i].id)};
    kh_status status = kh_jinja_parse(&template, text);
    if (status == KH_ERR_UNSUPPORTED) return unreadable(status);
    if (status == KH_OK) status = kh_jinja_render(template, out, spans, &all);
    kh_jinja_free(template);
    return status == KH_ERR_FORMAT || status == KH_ERR_UNSUPPORTED ? unreadable(status) : status;
}

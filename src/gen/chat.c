/* Rendering a conversation.
 *
 * Every format is a table row (chat_format.h): what stands around a system, a user and an assistant
 * text, what opens the answer, and a few flags. Formats without a system turn take the system text
 * into a user turn:
 *
 *     chatml    <|im_start|>system\n S <|im_end|>\n<|im_start|>user\n U <|im_end|>\n
 *     llama2    [INST] <<SYS>>\n S \n<</SYS>>\n\n U  [/INST]
 *     gemma     <start_of_turn>user\n S \n\n U <end_of_turn>\n
 *
 * Along with the text go spans that say which bytes came from a message. A message may contain
 * "<|im_end|>"; tokenised blindly, it would end its own turn and could speak for the system.
 * kh_chat_tokenize hands those bytes to the tokenizer as guarded ranges, within which no control
 * token is recognised. The text is still tokenised as a whole, so a harmless conversation gets exactly
 * the ids of the plain text.
 *
 * Trimming is Python's str.strip, which the templates call: Unicode white space and the four
 * separators U+001C to U+001F.
 *
 * A system text that no user turn follows becomes a user turn of its own, so that nothing is lost. */
#include "gen/chat.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "format/utf8.h"
#include "gen/chat_format.h"

#include <string.h>

typedef struct writer {
    const kh_chat_format *format;
    kh_buf *out, *spans;
    int turns; /* user turns so far */
} writer;

static kh_status add(writer *w, kh_slice text, int from_user)
{
    if (!text.size) return KH_OK;
    size_t start = w->out->size;
    KH_TRY(kh_buf_add(w->out, text.data, text.size));
    if (!w->spans) return KH_OK;
    kh_chat_span span = {start, text.size, from_user};
    kh_chat_span *last = (void *)w->spans->data;
    size_t n = w->spans->size / sizeof *last;
    if (n && last[n - 1].from_user == from_user && last[n - 1].start + last[n - 1].size == start) {
        last[n - 1].size += text.size;
        return KH_OK;
    }
    return kh_buf_add(w->spans, &span, sizeof span);
}

static kh_status literal(writer *w, const char *text)
{
    return add(w, (kh_slice){text, strlen(text)}, 0);
}

static int is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

static kh_slice trim_left(kh_slice text)
{
    while (text.size) {
        kh_utf8_step step = kh_utf8_next(text.data, text.size);
        if (!is_space(step.code)) break;
        text.data += step.size;
        text.size -= step.size;
    }
    return text;
}

static kh_slice trim_right(kh_slice text)
{
    size_t end = 0;
    for (size_t at = 0; at < text.size;) {
        kh_utf8_step step = kh_utf8_next(text.data + at, text.size - at);
        at += step.size;
        if (!is_space(step.code)) end = at;
    }
    text.size = end;
    return text;
}

static kh_slice text_of(const char *text)
{
    return (kh_slice){text, strlen(text)};
}

static kh_status add_system(writer *w, kh_slice text, kh_slice tail, int from_user)
{
    if (w->format->flags & KH_CHAT_SKIP_EMPTY && !text.size) return KH_OK;
    if (w->format->flags & KH_CHAT_TRIM_SYSTEM) text = trim_right(trim_left(text));
    KH_TRY(literal(w, w->format->system.head));
    KH_TRY(add(w, text, from_user));
    return add(w, tail, 0);
}

/* `system` (data NULL: none) goes inside the turn, in front of the text. llama2 trims the two together:
 * white space between them stays, unless nothing follows it. */
static kh_status add_user(writer *w, kh_slice system, kh_slice text)
{
    const kh_chat_format *f = w->format;
    int together = f->bos != NULL && system.data != NULL;
    if (f->flags & KH_CHAT_TRIM) text = trim_right(together ? text : trim_left(text));
    if (f->bos && w->turns) KH_TRY(literal(w, f->bos));
    ++w->turns;
    KH_TRY(literal(w, f->user.head));
    kh_slice tail = text_of(f->system.tail);
    if (together && !text.size) tail = trim_right(tail);
    if (system.data) KH_TRY(add_system(w, system, tail, 1));
    KH_TRY(add(w, text, 1));
    return literal(w, f->user.tail);
}

static kh_status add_assistant(writer *w, kh_slice whole)
{
    static const char thought[] = "</think>";
    kh_slice text = whole;
    const kh_chat_format *f = w->format;
    if (f->flags & KH_CHAT_NO_THOUGHTS)
        for (const char *at; (at = memmem(text.data, text.size, thought, 8)) != NULL;)
            text = (kh_slice){at + 8, text.size - (size_t)(at + 8 - text.data)};
    int cut = text.data != whole.data;
    while (cut && f->flags & KH_CHAT_NO_THOUGHT_LINES && text.size && text.data[0] == '\n')
        text = (kh_slice){text.data + 1, text.size - 1};
    if (f->flags & (KH_CHAT_TRIM | KH_CHAT_TRIM_ASSISTANT)) text = trim_right(trim_left(text));
    KH_TRY(literal(w, f->assistant.head));
    KH_TRY(add(w, text, 1));
    return literal(w, f->assistant.tail);
}

typedef enum role { SYSTEM, USER, ASSISTANT, NO_ROLE } role;

static role role_of(const kh_chat_message *message)
{
    static const char *const names[] = {"system", "user", "assistant"};
    for (int i = 0; i < NO_ROLE; ++i)
        if (!strcmp(message->role, names[i])) return (role)i;
    return NO_ROLE;
}

static kh_status render(writer *w, const kh_chat_message *messages, size_t n)
{
    const kh_chat_format *f = w->format;
    kh_slice waiting = {0}, tail = text_of(f->system.tail);
    size_t last_user = SIZE_MAX;
    for (size_t i = 0; i < n; ++i)
        if (role_of(&messages[i]) == USER) last_user = i;
    if (f->default_system && !(n && role_of(&messages[0]) == SYSTEM))
        KH_TRY(add_system(w, text_of(f->default_system), tail, 0));
    for (size_t i = 0; i < n; ++i) {
        role r = role_of(&messages[i]);
        kh_slice text = text_of(messages[i].text);
        if (r == SYSTEM && f->flags & (KH_CHAT_SYSTEM_FIRST | KH_CHAT_SYSTEM_LAST)) {
            if (waiting.data) KH_TRY(add_user(w, waiting, (kh_slice){"", 0}));
            waiting = text;
        } else if (r == SYSTEM) {
            KH_TRY(add_system(w, text, tail, 1));
        } else if (r == USER) {
            int now = !(f->flags & KH_CHAT_SYSTEM_LAST) || i == last_user;
            KH_TRY(add_user(w, now ? waiting : (kh_slice){0}, text));
            if (now) waiting = (kh_slice){0};
        } else {
            KH_TRY(add_assistant(w, text));
        }
    }
    return waiting.data ? add_user(w, waiting, (kh_slice){"", 0}) : KH_OK;
}

kh_status kh_chat_render(const kh_chat_format *format, kh_buf *out, kh_buf *spans,
                         const kh_chat_message *messages, size_t n, int open)
{
    for (size_t i = 0; i < n; ++i)
        if (role_of(&messages[i]) == NO_ROLE)
            KH_FAIL(KH_ERR_ARGUMENT,
                    "message %zu has the role \"%.32s\" (known: system, user, assistant)", i + 1,
                    messages[i].role);
    writer w = {format, out, spans, 0};
    KH_TRY(render(&w, messages, n));
    return open ? literal(&w, format->open) : KH_OK;
}

kh_status kh_chat_tokenize(const kh_tokenizer *tokenizer, kh_tokens *out, const kh_buf *text,
                           const kh_buf *spans, unsigned flags)
{
    const kh_chat_span *list = (const void *)spans->data;
    size_t n = spans->size / sizeof *list, guards = 0;
    kh_text_range *ranges;
    KH_TRY(kh_new(&ranges, n, sizeof *ranges, "the spans of a conversation"));
    for (size_t i = 0; i < n; ++i)
        if (list[i].from_user) ranges[guards++] = (kh_text_range){list[i].start, list[i].size};
    kh_status status = kh_tokenize_guarded(tokenizer, out, text->data ? text->data : "", text->size,
                                           flags | KH_TOKENIZE_SPECIAL, ranges, guards);
    kh_free(ranges);
    return status;
}

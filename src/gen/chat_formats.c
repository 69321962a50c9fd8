/* The chat formats that have a name, and which of them a file's template looks like.
 *
 * A GGUF file carries its template as a Jinja program, which gen/jinja.h runs. These formats serve files
 * without one, and users who want another (--chat-template NAME); `keyhole show` says which one a
 * template looks like, by the markers that occur in it:
 *
 *     marker in the template             format
 *     <|im_start|>                       chatml; smollm, qwen: with a default system message;
 *                                        qwen3: without the thoughts of earlier answers
 *     [INST] with <<SYS>>                llama2
 *     [INST] with [SYSTEM_PROMPT]        mistral-v7, mistral-v7-tekken
 *     [INST] otherwise                   mistral-v1, mistral-v3, mistral-v3-tekken, mistral (0.1, 0.2)
 *     <|start_header_id|>                llama3; llama3.1 when it states a knowledge date
 *     <start_of_turn>                    gemma
 *     <|User|> in wide bars              deepseek, deepseek-r1
 *     <|user|> ... <|end|>               phi3
 *     <|user|> ... eos_token             zephyr, stablelm, by the text of the end token
 *
 * A default system message stands in the template as a string literal: "...system\n" TEXT "<|im_end|>".
 * It tells smollm, qwen and chatml apart.
 *
 * llama3.1 says 26 Jul 2024, as the templates do without a clock: the same prompt gives the same tokens
 * tomorrow. */
#include "base/fail.h"
#include "gen/chat_format.h"

#include <string.h>

#define BAR "\xEF\xBD\x9C" /* U+FF5C */
#define DEEPSEEK(title, start, more)                                                               \
    {                                                                                              \
        .name = title, .user = {"<" BAR "User" BAR ">", ""},                                       \
        .assistant = {"<" BAR "Assistant" BAR ">",                                                 \
                      "<" BAR "end\xE2\x96\x81of\xE2\x96\x81sentence" BAR ">"},                    \
        .open = "<" BAR "Assistant" BAR ">" start, .system = {"", ""}, .flags = (more)             \
    }
#define CHATML(title, message, more)                                                               \
    {                                                                                              \
        .name = title, .system = {"<|im_start|>system\n", "<|im_end|>\n"},                         \
        .user = {"<|im_start|>user\n", "<|im_end|>\n"},                                            \
        .assistant = {"<|im_start|>assistant\n", "<|im_end|>\n"},                                  \
        .open = "<|im_start|>assistant\n", .default_system = (message), .flags = (more)            \
    }
#define HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define LLAMA3(title, preamble, message)                                                           \
    {                                                                                              \
        .name = title, .system = {HEADER("system") preamble, "<|eot_id|>"},                        \
        .user = {HEADER("user"), "<|eot_id|>"}, .assistant = {HEADER("assistant"), "<|eot_id|>"},  \
        .open = HEADER("assistant"), .default_system = (message),                                  \
        .flags = KH_CHAT_TRIM | KH_CHAT_TRIM_SYSTEM                                                \
    }
#define BARS(title, end, more)                                                                     \
    {                                                                                              \
        .name = title, .system = {"<|system|>\n", end "\n"}, .user = {"<|user|>\n", end "\n"},     \
        .assistant = {"<|assistant|>\n", end "\n"}, .open = "<|assistant|>\n", .flags = (more)     \
    }
#define MISTRAL(title, head, tail, answer, more)                                                   \
    {                                                                                              \
        .name = title, .system = {"", "\n\n"}, .user = {head, tail},                               \
        .assistant = {answer, "</s>"}, .open = "", .flags = (more)                                 \
    }

static const kh_chat_format formats[] = {
    CHATML("chatml", NULL, 0),
    CHATML("smollm", "You are a helpful AI assistant named SmolLM, trained by Hugging Face", 0),
    CHATML("qwen", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", 0),
    CHATML("qwen3", NULL, KH_CHAT_NO_THOUGHTS | KH_CHAT_NO_THOUGHT_LINES),
    {.name = "llama2",
     .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
     .user = {"[INST] ", " [/INST]"},
     .assistant = {" ", " </s>"},
     .open = "",
     .bos = "<s>",
     .flags = KH_CHAT_TRIM | KH_CHAT_SYSTEM_FIRST},
    LLAMA3("llama3", "", NULL),
    LLAMA3("llama3.1", "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n", ""),
    {.name = "gemma",
     .system = {"", "\n\n"},
     .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
     .assistant = {"<start_of_turn>model\n", "<end_of_turn>\n"},
     .open = "<start_of_turn>model\n",
     .flags = KH_CHAT_TRIM | KH_CHAT_SYSTEM_FIRST},
    MISTRAL("mistral", "[INST] ", " [/INST]", "", KH_CHAT_SYSTEM_FIRST),
    MISTRAL("mistral-v1", " [INST] ", " [/INST]", " ", KH_CHAT_SYSTEM_FIRST),
    MISTRAL("mistral-v3", "[INST] ", "[/INST]", " ", KH_CHAT_SYSTEM_LAST | KH_CHAT_TRIM_ASSISTANT),
    MISTRAL("mistral-v3-tekken", "[INST]", "[/INST]", "", KH_CHAT_SYSTEM_LAST),
    {.name = "mistral-v7",
     .system = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"},
     .user = {"[INST] ", "[/INST]"},
     .assistant = {" ", "</s>"},
     .open = ""},
    {.name = "mistral-v7-tekken",
     .system = {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"},
     .user = {"[INST]", "[/INST]"},
     .assistant = {"", "</s>"},
     .open = ""},
    BARS("phi3", "<|end|>", KH_CHAT_SKIP_EMPTY),
    BARS("zephyr", "</s>", 0),
    BARS("stablelm", "<|endoftext|>", 0),
    DEEPSEEK("deepseek", "", 0),
    DEEPSEEK("deepseek-r1", "<think>\n", KH_CHAT_NO_THOUGHTS),
};
enum { FORMATS = sizeof formats / sizeof formats[0] };

const kh_chat_format *kh_chat_by_name(const char *name)
{
    for (size_t i = 0; i < FORMATS; ++i)
        if (!strcmp(formats[i].name, name)) return &formats[i];
    return NULL;
}

const char *kh_chat_names(void)
{
    return "chatml, smollm, qwen, qwen3, llama2, llama3, llama3.1, gemma, mistral, mistral-v1, "
           "mistral-v3, "
           "mistral-v3-tekken, mistral-v7, mistral-v7-tekken, phi3, zephyr, stablelm, deepseek, "
           "deepseek-r1";
}

const char *kh_chat_name(const kh_chat_format *format)
{
    return format->name;
}

static const char *find(kh_slice text, const char *what)
{
    return text.size ? memmem(text.data, text.size, what, strlen(what)) : NULL;
}

static kh_slice behind(kh_slice text, const char *at, size_t skip)
{
    size_t used = (size_t)(at - text.data) + skip;
    return (kh_slice){text.data + used, text.size - used};
}

/* The template's own string for the system turn of ChatML, without its escapes; KH_ERR_NOT_FOUND (with
 * no sentence) when there is none. The literal must run from the marker to <|im_end|> unbroken. */
static kh_status read_literal(kh_buf *out, kh_slice text)
{
    static const char head[] = "<|im_start|>system", tail[] = "<|im_end|>";
    size_t before = out->size;
    for (const char *at; (at = find(text, head)) != NULL;) {
        char quote = at > text.data ? at[-1] : 0;
        text = behind(text, at, sizeof head - 1);
        out->size = before;
        if (quote != '\'' && quote != '"') continue;
        for (size_t i = 0; i < text.size && text.data[i] != quote; ++i) {
            kh_slice rest = {text.data + i, text.size - i};
            if (rest.size >= sizeof tail - 1 && !memcmp(rest.data, tail, sizeof tail - 1)) {
                if (out->size < before + 2 || out->data[before] != '\n') break;
                out->size -= 1;
                memmove(out->data + before, out->data + before + 1, out->size - before);
                out->data[out->size] = 0;
                return KH_OK;
            }
            char c = text.data[i];
            if (c == '\\' && i + 1 < text.size) {
                c = text.data[++i];
                c = (char)(c == 'n' ? '\n' : c == 't' ? '\t' : c);
            }
            KH_TRY(kh_buf_add(out, &c, 1));
        }
    }
    out->size = before;
    return KH_ERR_NOT_FOUND;
}

/* qwen3 drops thoughts; else the ChatML format whose default system message the template states. */
static kh_status recognise_chatml(const kh_chat_format **out, kh_slice text)
{
    kh_buf message = {0};
    kh_status status = read_literal(&message, text);
    *out = kh_chat_by_name(find(text, "</think>") ? "qwen3" : "chatml");
    for (size_t i = 0; status == KH_OK && i < FORMATS; ++i)
        if (formats[i].default_system && !strcmp(formats[i].default_system, message.data))
            *out = &formats[i];
    kh_buf_free(&message);
    return status == KH_ERR_NOT_FOUND ? KH_OK : status;
}

static const char *inst_name(kh_slice text)
{
    if (find(text, "[SYSTEM_PROMPT]"))
        return find(text, "[INST] ") ? "mistral-v7" : "mistral-v7-tekken";
    if (find(text, "<<SYS>>")) return "llama2";
    if (find(text, " [INST]")) return "mistral-v1";
    if (find(text, "[AVAILABLE_TOOLS]"))
        return find(text, "\"[INST]\"") || find(text, "'[INST]'") ? "mistral-v3-tekken"
                                                                  : "mistral-v3";
    return "mistral";
}

/* phi3, zephyr or stablelm, by what follows the user's text; NULL for their many cousins. */
static const char *bars_name(kh_slice text, kh_slice eos)
{
    const char *user = find(text, "<|user|>");
    if (!user || !find(text, "<|assistant|>")) return NULL;
    kh_slice rest = behind(text, user, 8);
    const char *next = find(rest, "<|");
    if (next && behind(rest, next, 0).size >= 7 && !memcmp(next, "<|end|>", 7)) return "phi3";
    if (next) rest.size = (size_t)(next - rest.data);
    if (!find(rest, "eos_token")) return NULL;
    if (eos.size == 4 && !memcmp(eos.data, "</s>", 4)) return "zephyr";
    if (eos.size == 13 && !memcmp(eos.data, "<|endoftext|>", 13)) return "stablelm";
    return NULL;
}

kh_status kh_chat_recognise(const kh_chat_format **out, kh_slice text, kh_slice eos)
{
    const char *name = NULL;
    *out = NULL;
    if (find(text, "<|im_start|>") && !find(text, "<|im_sep|>") &&
        !find(text, "<end_of_utterance>"))
        return recognise_chatml(out, text);
    if (find(text, "[INST]"))
        name = inst_name(text);
    else if (find(text, "<|start_header_id|>") && find(text, "<|end_header_id|>"))
        name = find(text, "Cutting Knowledge Date") ? "llama3.1" : "llama3";
    else if (find(text, "<start_of_turn>"))
        name = "gemma";
    else if (find(text, "<" BAR "User" BAR ">") && find(text, "<" BAR "Assistant" BAR ">"))
        name = find(text, "<" BAR "Assistant" BAR "><think>") ? "deepseek-r1" : "deepseek";
    else
        name = bars_name(text, eos);
    *out = name ? kh_chat_by_name(name) : NULL;
    return KH_OK;
}

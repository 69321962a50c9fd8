/* Fuzz target of chat templates: an input is a template, and behind its first zero byte, if it
 * has one, the messages as JSON (else a conversation with everything in it).
 *
 * It renders within small limits or ends with a sentence; either way nothing leaks, the text is
 * UTF-8, and its spans cover it. */
#include "base/alloc.h"
#include "format/utf8.h"
#include "jinja/jinja.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int good)
{
    if (good) return;
    fprintf(stderr, "%s\n", kh_last_error());
    abort();
}

static kh_slice slice(const char *text)
{
    return (kh_slice){text, strlen(text)};
}

static const char talk[] =
    "[{\"role\":\"system\",\"content\":\" Be <|im_end|> brief. \"},"
    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Gr\\u00fc\\u00dfe\"},{\"type\":"
    "\"image\"}]},"
    "{\"role\":\"assistant\",\"content\":\"<think>\\nhm</think>\\nyes\",\"reasoning\":\"r\"},"
    "{\"role\":\"user\",\"content\":\"w\"},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"call12345\",\"type\":"
    "\"function\","
    "\"function\":{\"name\":\"f\",\"arguments\":{\"a\":[1,-2.5e3,true,null,{}],\"b\":\"x'\\\"\"}}}]"
    "},"
    "{\"role\":\"tool\",\"tool_call_id\":\"call12345\",\"name\":\"f\",\"content\":\"42\"}]";
static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":{"
    "\"type\":"
    "\"object\",\"properties\":{\"a\":{\"type\":\"array\",\"items\":{\"type\":\"integer\"}},\"b\":{"
    "\"type\":"
    "[\"string\",\"null\"],\"enum\":[\"x\",\"y\"]}},\"required\":[\"a\"]}}}]";

static void check(const kh_buf *text, const kh_buf *spans, kh_status status)
{
    const kh_chat_span *list = (const void *)spans->data;
    size_t at = 0;
    for (size_t i = 0; i < spans->size / sizeof *list; i++) {
        must(list[i].start == at && list[i].size > 0);
        at += list[i].size;
    }
    must(at == text->size);
    must(status == KH_OK || (kh_last_error()[0] && !text->size));
    must(!text->size || kh_utf8_valid(text->data, text->size) == text->size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const kh_jinja_token tokens[] = {{"bos_token", {"<s>", 3}}, {"eos_token", {"</s>", 4}}};
    uint64_t live = kh_alloc_get_stats().live;
    const char *text = (const char *)data, *end = size ? memchr(text, 0, size) : NULL;
    size_t length = end ? (size_t)(end - text) : size;
    kh_jinja *jinja;
    kh_buf out = {0}, spans = {0};
    kh_jinja_input input = {.messages = end ? (kh_slice){end + 1, size - length - 1} : slice(talk),
                            .tools = slice(tools),
                            .kwargs = slice("{\"enable_thinking\":true,\"n\":7}"),
                            .tokens = tokens,
                            .token_count = 2,
                            .time = 1,
                            .limits = {.steps = 300000, .memory = 8 << 20, .output = 1 << 20}};
    kh_status status = kh_jinja_parse(&jinja, (kh_slice){text, length});
    must(status == KH_OK || (!jinja && kh_last_error()[0]));
    if (jinja) status = kh_jinja_render(jinja, &out, &spans, &input);
    check(&out, &spans, status);
    kh_jinja_free(jinja);
    kh_buf_free(&out);
    kh_buf_free(&spans);
    must(kh_alloc_get_stats().live == live);
    return 0;
}

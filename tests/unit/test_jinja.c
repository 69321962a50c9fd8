/* The interpreter of chat templates against Jinja2 in Hugging Face's environment
 * (tests/golden/jinja): every published template over every conversation, and small expressions,
 * equal to the byte; where the reference fails, so does it. Then what the reference cannot say:
 * where bytes come from, and the limits. */
#include "base/alloc.h"
#include "jinja/jinja.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static json_t *load(const char *path)
{
    json_error_t error;
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (!root) fail_msg("%s: %s", path, error.text);
    return root;
}

static kh_slice slice(const char *text)
{
    return (kh_slice){text, strlen(text)};
}

static kh_slice slice_of(const json_t *string)
{
    return (kh_slice){json_string_value(string), json_string_length(string)};
}

/* The JSON text of a member, without data when there is none; the caller frees it. */
static char *text_of(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    return value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
}

static kh_slice maybe(const char *text)
{
    return text ? slice(text) : (kh_slice){0};
}

static uint64_t fnv(const kh_buf *text)
{
    uint64_t h = 14695981039346656037ULL;
    for (size_t i = 0; i < text->size; ++i)
        h = (h ^ (unsigned char)text->data[i]) * 1099511628211ULL;
    return h;
}

/* Says what differs; 1 when the answer is the reference's. */
static int check(const json_t *want, kh_status status, const kh_buf *got, const char *a,
                 const char *b)
{
    const json_t *text = json_object_get(want, "text"), *raises = json_object_get(want, "raises");
    const char *made = got->data ? got->data : "";
    if (text || json_object_get(want, "begins")) {
        kh_slice all = text ? slice_of(text) : (kh_slice){0};
        char hash[24];
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)fnv(got));
        if (status == KH_OK &&
            (text ? got->size == all.size && (!all.size || !memcmp(made, all.data, all.size))
                  : !strcmp(hash, json_string_value(json_object_get(want, "fnv")))))
            return 1;
        print_error("%s / %s:\n want [%s]\n got  [%s]\n", a, b,
                    json_string_value(text ? text : json_object_get(want, "begins")),
                    status == KH_OK ? made : kh_last_error());
        return 0;
    }
    if (raises && status == KH_ERR_ARGUMENT && !strcmp(kh_last_error(), json_string_value(raises)))
        return 1;
    if (!raises && status != KH_OK) return 1;
    print_error("%s / %s:\n want [failure: %s]\n got  [%s]\n", a, b,
                json_string_value(raises ? raises : json_object_get(want, "fails")),
                status == KH_OK ? made : kh_last_error());
    return 0;
}

enum { MOST_TOKENS = 8 };

static size_t read_tokens(kh_jinja_token *out, json_t *tokens)
{
    size_t n = 0;
    const char *name;
    json_t *value;
    json_object_foreach(tokens, name, value)
    {
        assert_true(n < MOST_TOKENS);
        out[n++] = (kh_jinja_token){name, slice_of(value)};
    }
    return n;
}

static kh_status read_template(kh_jinja **out, const char *name)
{
    static char text[1 << 16];
    char path[256];
    snprintf(path, sizeof path, "tests/golden/jinja/%s.jinja", name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t size = fread(text, 1, sizeof text, file);
    assert_true(size < sizeof text);
    fclose(file);
    return kh_jinja_parse(out, (kh_slice){text, size});
}

/* Spans are in order, without gaps, and cover the text. */
static void check_spans(const kh_buf *text, const kh_buf *spans)
{
    const kh_chat_span *list = (const void *)spans->data;
    size_t at = 0;
    for (size_t i = 0; i < spans->size / sizeof *list; ++i) {
        assert_int_equal(list[i].start, at);
        assert_true(list[i].size > 0 && (!i || list[i].from_user != list[i - 1].from_user));
        at += list[i].size;
    }
    assert_int_equal(at, text->size);
}

static int one_conversation(const json_t *root, const json_t *template, const kh_jinja *jinja,
                            size_t n)
{
    json_t *talk = json_array_get(json_object_get(root, "conversations"), n);
    json_t *more = json_deep_copy(talk);
    const char *const own[] = {"name", "messages", "tools", "documents", "add_generation_prompt"};
    for (size_t i = 0; i < sizeof own / sizeof own[0]; ++i) json_object_del(more, own[i]);
    char *messages = text_of(talk, "messages"), *tools = text_of(talk, "tools"),
         *documents = text_of(talk, "documents"), *kwargs = json_dumps(more, 0);
    kh_jinja_token tokens[MOST_TOKENS];
    kh_jinja_input input = {
        .messages = maybe(messages),
        .tools = maybe(tools),
        .documents = maybe(documents),
        .kwargs = slice(kwargs),
        .tokens = tokens,
        .closed = json_is_false(json_object_get(talk, "add_generation_prompt"))};
    input.token_count = read_tokens(tokens, json_object_get(template, "tokens"));
    input.time = json_integer_value(json_object_get(root, "time"));
    kh_buf text = {0}, spans = {0};
    kh_status status = kh_jinja_render(jinja, &text, &spans, &input);
    check_spans(&text, &spans);
    int good = check(json_array_get(json_object_get(template, "answers"), n), status, &text,
                     json_string_value(json_object_get(template, "name")),
                     json_string_value(json_object_get(talk, "name")));
    kh_buf_free(&text);
    kh_buf_free(&spans);
    json_decref(more);
    free(messages);
    free(tools);
    free(documents);
    free(kwargs);
    return good;
}

static void test_published_templates(void **state)
{
    (void)state;
    json_t *root = load("tests/golden/jinja/cases.json"), *template;
    size_t i, cases = 0, good = 0;
    json_array_foreach(json_object_get(root, "templates"), i, template)
    {
        kh_jinja *jinja;
        const char *name = json_string_value(json_object_get(template, "name"));
        if (read_template(&jinja, name) != KH_OK) fail_msg("%s: %s", name, kh_last_error());
        for (size_t n = 0; n < json_array_size(json_object_get(template, "answers")); ++n, ++cases)
            good += (size_t)one_conversation(root, template, jinja, n);
        kh_jinja_free(jinja);
    }
    print_message("%zu of %zu renderings of %zu templates\n", good, cases, i);
    assert_true(i >= 40 && cases >= 800);
    assert_int_equal(good, cases);
    json_decref(root);
}

static void test_expressions(void **state)
{
    (void)state;
    json_t *root = load("tests/golden/jinja/expressions.json"), *one;
    char *variables = text_of(root, "variables");
    size_t i, good = 0;
    json_array_foreach(json_object_get(root, "expressions"), i, one)
    {
        kh_jinja *jinja;
        kh_buf text = {0};
        kh_slice source = slice_of(json_object_get(one, "source"));
        kh_jinja_input input = {.kwargs = slice(variables),
                                .time = json_integer_value(json_object_get(root, "time"))};
        kh_status status = kh_jinja_parse(&jinja, source);
        if (status == KH_OK) status = kh_jinja_render(jinja, &text, NULL, &input);
        good += (size_t)check(one, status, &text, source.data, "");
        kh_buf_free(&text);
        kh_jinja_free(jinja);
    }
    print_message("%zu of %zu expressions\n", good, i);
    assert_true(i >= 800);
    assert_int_equal(good, i);
    free(variables);
    json_decref(root);
}

/* ---- what the reference cannot say ---- */

static kh_status run(kh_buf *text, kh_buf *spans, const char *template, const char *messages,
                     const kh_jinja_limits *limits)
{
    kh_jinja *jinja;
    kh_jinja_token bos = {"bos_token", {"<s>", 3}};
    kh_jinja_input input = {.messages = slice(messages), .tokens = &bos, .token_count = 1};
    if (limits) input.limits = *limits;
    kh_status status = kh_jinja_parse(&jinja, slice(template));
    if (status == KH_OK) status = kh_jinja_render(jinja, text, spans, &input);
    kh_jinja_free(jinja);
    return status;
}

/* Renders over two messages of tagged content; `want` shows the conversation's bytes as '#'. */
static void check_origin(const char *template, const char *want)
{
    static const char messages[] = "[{\"role\": \"user\", \"content\": \"Ab c\"},"
                                   " {\"role\": \"<x>\", \"content\": [\"p\", {\"k\": \"v\"}]}]";
    kh_buf text = {0}, spans = {0};
    if (run(&text, &spans, template, messages, NULL) != KH_OK)
        fail_msg("%s: %s", template, kh_last_error());
    const kh_chat_span *list = (const void *)spans.data;
    for (size_t i = 0; i < spans.size / sizeof *list; ++i)
        if (list[i].from_user) memset(text.data + list[i].start, '#', list[i].size);
    if (text.data) assert_string_equal(text.data, want);
    kh_buf_free(&text);
    kh_buf_free(&spans);
}

static void test_origin(void **state)
{
    (void)state;
#define C "messages[0].content"
    check_origin("{{ bos_token }}<|{{ messages[0].role }}|>{{ " C " }}</s>", "<s><|user|>####</s>");
    check_origin("{{ '<|' + messages[1].role + '|>' }}", "<|###|>");
    check_origin("{{ 'a' + " C " + 'b' }}{{ 'a' ~ " C " ~ 1 }}", "a####ba####1");
    check_origin("{{ (' ' ~ " C " ~ ' x') | trim }}|{{ (" C " ~ '  ').rstrip() }}", "#### x|####");
    check_origin("{{ ('a' ~ " C ")[0:3] }}{{ ('a' ~ " C ")[::-1] }}", "a######a");
    check_origin("{{ ('x' ~ " C ").upper() }}{{ ('xß' ~ " C ") | title }}", "X####Xß####");
    check_origin("{{ " C ".replace('b', 'zz') }}{{ 'a-b'.replace('-', " C ") }}", "#zz##a####b");
    check_origin("{{ " C ".split(' ') | join('<|>') }}", "##<|>#");
    check_origin("{{ ['<', " C ", '>'] | join }}{{ " C ".join(['<', '>']) }}", "<####><####>");
    check_origin("{{ '<%s|%5s>' % (" C ", " C ") }}", "<####| ####>");
    check_origin("{{ '<{}|{:>6}>'.format(" C ", " C ") }}", "<####|  ####>");
    check_origin("{{ '<' ~ (" C " | tojson) ~ '>' }}", "<######>");
    check_origin("{{ messages[1].content }}", "#################");
    check_origin("{% for c in " C " %}[{{ c }}]{% endfor %}", "[#][#][#][#]");
    check_origin("{% for k, v in messages[1].content[1].items() %}{{ k }}={{ v }}{% endfor %}",
                 "#=#");
    check_origin("{% set x %}<{{ " C " }}>{% endset %}{{ x }}", "<####>");
    check_origin("{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m(" C ") }}{{ m('t') }}", "<####><t>");
    check_origin("{% filter upper %}<{{ " C " }}>{% endfilter %}", "<####>");
    check_origin("{% set ns = namespace(x='') %}{% for i in 'ab' %}{% set ns.x = ns.x + i + " C
                 " %}{% endfor %}{{ ns.x }}",
                 "a####b####");
    check_origin("{{ ('a\nb' ~ " C ") | indent(2) }}", "a\n  b####");
    check_origin("{{ (" C " ~ '|' ~ 'x').partition('|') | last }}", "x");
    check_origin("{{ " C " | length }}{{ " C " == 'Ab c' }}{{ 'yes' if 'b' in " C " }}",
                 "4Trueyes");
    check_origin("{{ ('<' ~ " C ") | e }}{{ '<' | safe + " C " }}", "&lt;####<####");
    check_origin("{{ " C "[0] * 3 }}{{ [" C "] }}", "###########");
    check_origin("{{ {'k': " C "}.k }}{{ ([" C "] + ['t']) | last }}", "####t");
#undef C
}

static void check_limit(const char *template, kh_jinja_limits limits, const char *word)
{
    kh_buf text = {0};
    kh_status status = run(&text, NULL, template, "[]", &limits);
    if (status != KH_ERR_FORMAT || !strstr(kh_last_error(), word) ||
        !strstr(kh_last_error(), "line 2"))
        fail_msg("%s: %d %s", template, status, kh_last_error());
    assert_int_equal(text.size, 0);
    kh_buf_free(&text);
}

static void test_limits(void **state)
{
    (void)state;
    const char *forever = "\n{% set r = range(9999) %}{% for a in r %}{{ -1 in r }}{% endfor %}";
    check_limit(forever, (kh_jinja_limits){0}, "steps");
    check_limit("\n{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", (kh_jinja_limits){0},
                "deeper");
    check_limit("\n{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x + "
                "ns.x %}{% endfor %}",
                (kh_jinja_limits){.memory = 1 << 22}, "memory");
    check_limit("\n{{ 'x' * 1000000000 }}", (kh_jinja_limits){0}, "takes more");
    check_limit("\n{% for i in range(50000) %}{{ 'x' * 100 }}{% endfor %}",
                (kh_jinja_limits){.output = 9999}, "writes more than 9999 bytes");
    check_limit("\n{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] "
                "%}{% endfor %}"
                "{{ ns.x }}",
                (kh_jinja_limits){0}, "deeper");
    check_limit("\n{% set ns = namespace() %}{% set ns.x = ns %}{{ [ns] }}", (kh_jinja_limits){0},
                "deeper");
}

static void test_deep_text(void **state)
{
    (void)state;
    static char text[60000];
    static const char *const parts[] = {
        "(",     "[",  "-",  "not ", "{1:", "{% if 1 %}", "{% for a in a %}",
        "a if ", "a.", "a|", "((",   "{{'", "x is not ",  "1+"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; ++i) {
        kh_jinja *jinja;
        size_t size = 0, n = strlen(parts[i]);
        int statement = parts[i][0] == '{' && parts[i][1] == '%';
        if (!statement) size = (size_t)snprintf(text, sizeof text, "{{ ");
        while (size + n < sizeof text) {
            memcpy(text + size, parts[i], n);
            size += n;
        }
        assert_int_equal(kh_jinja_parse(&jinja, (kh_slice){text, size}), KH_ERR_UNSUPPORTED);
        assert_null(jinja);
        assert_non_null(strstr(kh_last_error(), "line 1"));
    }
}

static void test_sentences(void **state)
{
    (void)state;
    static const struct {
        const char *template, *messages, *want;
    } list[] = {
        {"a\n{{ nope.x }}", "[]", "the chat template, line 2: 'nope' is undefined"},
        {"a\n{{ 1 | nope }}", "[]", "the chat template, line 2: there is no filter named 'nope'"},
        {"{% if true %}\n\n{% endfor %}", "[]", "the chat template, line 3: expected"},
        {"{{ raise_exception('Only users.') }}", "[]", "Only users."},
        {"x", "{}", "messages: expected an array, found dict"},
        {"x", "[1]", "message 1: expected an object, found int"},
        {"x", "[{]", "messages: no valid JSON at byte 2"},
        {"x", "[\"\xFF\"]", "expected UTF-8"},
        {"x", "[\"\\ud800\"]", "surrogate"},
        {"x", "[99999999999999999999]", "64 bits"},
        {"\xFF", "[]", "expected UTF-8"},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; ++i) {
        kh_buf text = {0};
        assert_true(run(&text, NULL, list[i].template, list[i].messages, NULL) != KH_OK);
        if (!strstr(kh_last_error(), list[i].want)) fail_msg("%s", kh_last_error());
        assert_null(text.data);
    }
}

/* Nothing is left behind, wherever memory ends. */
static void test_no_memory(void **state)
{
    (void)state;
    kh_jinja *jinja;
    assert_int_equal(read_template(&jinja, "llama-3.1"), KH_OK);
    kh_jinja_free(jinja);
    uint64_t live = kh_alloc_get_stats().live;
    int good = 0;
    for (uint64_t n = 1; !good && n < 1000; ++n) {
        kh_buf text = {0}, spans = {0};
        kh_jinja_input input = {.messages = slice("[{\"role\": \"user\", \"content\": \"Hi\"}]")};
        kh_alloc_fail_at(n);
        kh_status status = read_template(&jinja, "llama-3.1");
        if (status == KH_OK) status = kh_jinja_render(jinja, &text, &spans, &input);
        kh_alloc_fail_at(0);
        good = status == KH_OK;
        if (!good) assert_int_equal(status, KH_ERR_MEMORY);
        kh_jinja_free(jinja);
        kh_buf_free(&text);
        kh_buf_free(&spans);
        assert_int_equal(kh_alloc_get_stats().live, live);
        assert_true(!good || n > 5);
    }
    assert_true(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expressions), cmocka_unit_test(test_published_templates),
        cmocka_unit_test(test_origin),      cmocka_unit_test(test_limits),
        cmocka_unit_test(test_deep_text),   cmocka_unit_test(test_sentences),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

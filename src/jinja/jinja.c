/* Chat templates: the interpreter's outside. Parse once, then render: variables in, text and
 * origin out.
 *
 *     text -> tokens (jinja_lex) -> tree (jinja_parse, jinja_expr)          once for a template
 *     JSON -> values -> walk over the tree (jinja_exec, jinja_eval) -> text with origins -> spans
 *
 * A template comes out of a model file, so it is a stranger's program. It has no way to a file,
 * the network or the environment (there is no include, and attributes are those of the values in
 * jinja_value.h), only to time, memory and depth, which kh_jinja_limits bounds. A rendering
 * shares nothing with another one: the tree is not written to, and all memory of a rendering
 * goes away with it.
 *
 * The reference is Jinja2 3.1 in the environment that Hugging Face's apply_chat_template makes
 * of it: an immutable sandbox, trim_blocks, lstrip_blocks, loop controls, the generation tag,
 * tojson without escapes, raise_exception, strftime_now. What differs: a failure's sentence
 * (only raise_exception's is the same), generators are not lazy, integers have 64 bits.
 *
 * Measured: for a conversation of three short messages the published templates in
 * tests/golden/jinja take 270 to 1,900 steps and 6 to 53 KB of memory. */
#include "jinja/jinja.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "jinja/jinja_call.h"

#include <string.h>

struct kh_jinja {
    kh_jmemory memory; /* of the tree */
    const kh_jnode *tree;
};

enum {
    STEPS = 20000000,
    MEMORY = 256 << 20,
    OUTPUT = 64 << 20,
    DEPTH = 400,
    TREE_STEPS = 4000000,
    TREE_MEMORY = 64 << 20,
    TREE_DEPTH = 100
};

static kh_status at_line(const kh_jrun *run, kh_status status)
{
    if (status == KH_OK || run->raised) return status;
    return kh_fail_context(status, "the chat template, line %u", run->line);
}

static kh_status parse(kh_jrun *run, const kh_jnode **tree, kh_slice text)
{
    kh_jtoken *tokens;
    KH_TRY(kh_jtoken_list(run, &tokens, text.data ? text.data : "", text.size));
    kh_jparser parser = {.run = run, .at = tokens};
    kh_status status = kh_jparser_template(&parser, tree);
    if (status != KH_OK) run->line = parser.at->line;
    return status;
}

kh_status kh_jinja_parse(kh_jinja **out, kh_slice text)
{
    kh_jinja *template;
    kh_jrun run = {
        .memory = {.limit = TREE_MEMORY}, .step_limit = TREE_STEPS, .depth_limit = TREE_DEPTH};
    *out = NULL;
    KH_TRY(kh_new(&template, 1, sizeof *template, "a chat template"));
    kh_status status = parse(&run, &template->tree, text);
    if (status == KH_ERR_FORMAT) status = KH_ERR_UNSUPPORTED; /* past a limit: not for us either */
    status = at_line(&run, status);
    template->memory = run.memory;
    if (status == KH_OK)
        *out = template;
    else
        kh_jinja_free(template);
    return status;
}

void kh_jinja_free(kh_jinja *template)
{
    if (!template) return;
    kh_jmemory_free(&template->memory);
    kh_free(template);
}

/* ---- variables ---- */

static kh_status set(kh_jrun *run, const char *name, kh_jval value)
{
    kh_jval key;
    KH_TRY(kh_jval_literal(run, &key, name));
    return kh_jscope_set(run, key.s, value);
}

static kh_status set_json(kh_jrun *run, const char *name, kh_slice json)
{
    kh_jval value = kh_jval_none();
    if (json.data) KH_TRY(kh_jval_parse(run, &value, json.data, json.size, 1, name));
    return set(run, name, value);
}

/* The usual words for a role may be part of a marker, as in '<|' + role + '|>'. */
static kh_status trust_role(kh_jrun *run, kh_jval *role)
{
    static const char *const words[] = {"system", "user",     "assistant", "tool",
                                        "model",  "function", "developer", "ipython"};
    if (role->kind != KH_J_STRING) return KH_OK;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; ++i)
        if (kh_jtext_is(*role->s, words[i])) return kh_jval_literal(run, role, words[i]);
    return KH_OK;
}

/* Without null members, and with the reasoning under each name that templates read it by. */
static kh_status prepare(kh_jrun *run, kh_jval message, kh_jval *out)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    kh_jval reasoning = {0}, key;
    KH_TRY(kh_jval_dict(run, out, KH_J_DICT));
    for (int i = 0; i < 3 && reasoning.kind <= KH_J_NONE; ++i)
        KH_TRY(kh_jdict_word(run, message.dict, names[i], &reasoning));
    if (reasoning.kind > KH_J_NONE) {
        KH_TRY(kh_jval_literal(run, &key, names[1]));
        KH_TRY(kh_jdict_set(run, out->dict, key, reasoning));
    }
    for (size_t i = 0; i < message.dict->count; ++i) {
        kh_jentry entry = message.dict->entries[i];
        if (entry.value.kind == KH_J_NONE) continue;
        if (kh_jtext_is(*entry.key.s, "role")) KH_TRY(trust_role(run, &entry.value));
        KH_TRY(kh_jdict_set(run, out->dict, entry.key, entry.value));
    }
    if (reasoning.kind <= KH_J_NONE) return KH_OK;
    KH_TRY(kh_jval_literal(run, &key, names[0]));
    return kh_jdict_set(run, out->dict, key, reasoning);
}

static kh_status set_messages(kh_jrun *run, kh_slice json)
{
    kh_jval list, all;
    if (!json.data) return set(run, "messages", kh_jval_none());
    KH_TRY(kh_jval_parse(run, &list, json.data, json.size, 1, "messages"));
    if (list.kind != KH_J_LIST)
        KH_FAIL(KH_ERR_ARGUMENT, "messages: expected an array, found %s", kh_jval_type(list));
    KH_TRY(kh_jval_list(run, &all, KH_J_LIST, list.list->count));
    for (size_t i = 0; i < list.list->count; ++i) {
        kh_jval message;
        if (list.list->items[i].kind != KH_J_DICT)
            KH_FAIL(KH_ERR_ARGUMENT, "message %zu: expected an object, found %s", i + 1,
                    kh_jval_type(list.list->items[i]));
        KH_TRY(prepare(run, list.list->items[i], &message));
        KH_TRY(kh_jlist_add(run, all.list, message));
    }
    return set(run, "messages", all);
}

static kh_status set_kwargs(kh_jrun *run, kh_slice json)
{
    static const char *const taken[] = {"messages", "tools", "documents", "add_generation_prompt"};
    kh_jval all;
    if (!json.data) return KH_OK;
    KH_TRY(kh_jval_parse(run, &all, json.data, json.size, 1, "template variables"));
    if (all.kind != KH_J_DICT)
        KH_FAIL(KH_ERR_ARGUMENT, "template variables: expected an object, found %s",
                kh_jval_type(all));
    for (size_t i = 0; i < all.dict->count; ++i) {
        for (size_t k = 0; k < sizeof taken / sizeof taken[0]; ++k)
            if (kh_jtext_is(*all.dict->entries[i].key.s, taken[k]))
                KH_FAIL(KH_ERR_ARGUMENT, "template variables: %s has its own place", taken[k]);
        KH_TRY(kh_jscope_set(run, all.dict->entries[i].key.s, all.dict->entries[i].value));
    }
    return KH_OK;
}

static kh_status set_all(kh_jrun *run, const kh_jinja_input *input)
{
    KH_TRY(kh_jscope_open(run));
    for (size_t i = 0; i < input->token_count; ++i) {
        kh_jval value;
        kh_jtext text = {.data = input->tokens[i].text.data, .size = input->tokens[i].text.size};
        KH_TRY(kh_jval_text(run, &value, text));
        KH_TRY(set(run, input->tokens[i].name, value));
    }
    KH_TRY(set_kwargs(run, input->kwargs));
    KH_TRY(set_messages(run, input->messages));
    KH_TRY(set_json(run, "tools", input->tools));
    KH_TRY(set_json(run, "documents", input->documents));
    return set(run, "add_generation_prompt", kh_jval_bool(!input->closed));
}

/* ---- rendering ---- */

static kh_status add_spans(kh_buf *spans, kh_jtext text, size_t start)
{
    for (size_t at = 0, end; at < text.size; at = end) {
        int said = text.said && text.said[at];
        for (end = at + 1; end < text.size && said == (text.said && text.said[end]);) ++end;
        kh_chat_span span = {start + at, end - at, said};
        KH_TRY(kh_buf_add(spans, &span, sizeof span));
    }
    return KH_OK;
}

static kh_status render(kh_jrun *run, const kh_jinja *template, kh_jtext *out,
                        const kh_jinja_input *input)
{
    kh_jout text = {.run = run};
    kh_status status = set_all(run, input);
    run->raised = status != KH_OK; /* of the input: no line to name */
    KH_TRY(status);
    KH_TRY(kh_jscope_open(run));
    KH_TRY(kh_jexec(run, template->tree, &text));
    *out = kh_jout_text(&text);
    return KH_OK;
}

kh_status kh_jinja_render(const kh_jinja *template, kh_buf *out, kh_buf *spans,
                          const kh_jinja_input *input)
{
    const kh_jinja_limits *most = &input->limits;
    kh_jrun run = {.memory = {.limit = most->memory ? most->memory : MEMORY},
                   .step_limit = most->steps ? most->steps : STEPS,
                   .depth_limit = most->depth ? most->depth : DEPTH,
                   .output_limit = most->output ? most->output : OUTPUT,
                   .time = input->time};
    kh_jtext text = {0};
    size_t before = out->size, spans_before = spans ? spans->size : 0;
    kh_status status = at_line(&run, render(&run, template, &text, input));
    if (status == KH_OK) status = kh_buf_add(out, text.data, text.size);
    if (status == KH_OK && spans) status = add_spans(spans, text, before);
    if (status != KH_OK) {
        out->size = before;
        if (out->data) out->data[before] = 0;
        if (spans) spans->size = spans_before;
    }
    kh_jmemory_free(&run.memory);
    return status;
}

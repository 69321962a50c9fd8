/* Statements of a chat template: the tree that a rendering walks.
 *
 *     {% if a %} A {% elif b %} B {% else %} C {% endif %}
 *
 *     DO_IF   a -> BRANCH(a, A) -> BRANCH(b, B)      b -> C
 *
 * Taken: for (with `if` and else), if, set (also as a block, also of a namespace's attribute),
 * macro, call, filter, with, break and continue, generation (which only says what to train on).
 * Named as not supported, because a file's template stands alone: include, import, from,
 * extends, block; and do, autoescape, trans, which Hugging Face does not switch on either; and
 * loops marked recursive.
 *
 * Lists of statements nest by recursion, counted like the depth of expressions. An `elif` chain
 * is a list and costs no depth. */
#include "jinja/jinja_tree.h"

#include "base/fail.h"

#include <string.h>

static kh_status statements(kh_jparser *p, const kh_jnode **out, const char *const *ends);

/* The end of a tag, then statements up to one of `ends`, whose name stays next. */
static kh_status body(kh_jparser *p, const kh_jnode **out, const char *const *ends)
{
    if (p->at->kind != KH_J_BLOCK_END) return kh_jparser_fail(p, "the end of the tag (%})");
    ++p->at;
    return statements(p, out, ends);
}

/* The same for a body with one end, which is taken. */
static kh_status body_to(kh_jparser *p, const kh_jnode **out, const char *end)
{
    KH_TRY(body(p, out, (const char *const[]){end, NULL}));
    ++p->at;
    return KH_OK;
}

static kh_status parse_if(kh_jparser *p, kh_jnode **out)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    kh_jnodes branches = {0};
    KH_TRY(kh_jparser_node(p, out, KH_J_DO_IF));
    do {
        kh_jnode *branch, *when;
        ++p->at;
        KH_TRY(kh_jparser_node(p, &branch, KH_J_DO_BRANCH));
        KH_TRY(kh_jparser_tuple(p, &when, KH_J_NO_CHOICE));
        branch->a = when;
        KH_TRY(body(p, &branch->b, ends));
        kh_jnodes_add(&branches, branch);
    } while (kh_jparser_sees(p, "elif"));
    (*out)->a = branches.first;
    if (kh_jparser_takes(p, "else")) return body_to(p, &(*out)->b, "endif");
    ++p->at;
    return KH_OK;
}

static kh_status parse_for(kh_jparser *p, kh_jnode **out)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    kh_jnode *target, *what, *when = NULL;
    KH_TRY(kh_jparser_node(p, out, KH_J_DO_FOR));
    ++p->at;
    KH_TRY(kh_jparser_target(p, &target));
    if (!kh_jparser_takes(p, "in")) return kh_jparser_fail(p, "'in'");
    KH_TRY(kh_jparser_tuple(p, &what, KH_J_NO_CHOICE));
    if (kh_jparser_takes(p, "if")) KH_TRY(kh_jparser_expression(p, &when));
    if (kh_jparser_sees(p, "recursive")) return kh_jparser_fail(p, "a loop that is not recursive");
    (*out)->a = target;
    (*out)->b = what;
    (*out)->e = when;
    ++p->loops;
    KH_TRY(body(p, &(*out)->c, ends));
    --p->loops;
    if (kh_jparser_takes(p, "else")) return body_to(p, &(*out)->d, "endfor");
    ++p->at;
    return KH_OK;
}

static kh_status parse_set(kh_jparser *p, kh_jnode **out)
{
    kh_jnode *target, *value, *given;
    KH_TRY(kh_jparser_node(p, out, KH_J_DO_SET));
    ++p->at;
    KH_TRY(kh_jparser_target(p, &target));
    (*out)->a = target;
    if (kh_jparser_takes_sign(p, '=')) {
        KH_TRY(kh_jparser_tuple(p, &value, 0));
        (*out)->b = value;
        return KH_OK;
    }
    (*out)->kind = KH_J_DO_SET_BLOCK;
    KH_TRY(kh_jparser_node(p, &given, KH_J_GIVEN));
    KH_TRY(kh_jparser_filters(p, &value, given, 0));
    (*out)->b = value;
    return body_to(p, &(*out)->c, "endset");
}

/* `(a, b=1)` of a macro or a call block. */
static kh_status parameters(kh_jparser *p, const kh_jnode **out)
{
    kh_jnodes list = {0};
    int defaults = 0;
    KH_TRY(kh_jparser_expect(p, '('));
    while (!kh_jparser_sign(p, ')')) {
        kh_jnode *param, *value;
        if (list.first) KH_TRY(kh_jparser_expect(p, ','));
        KH_TRY(kh_jparser_node(p, &param, KH_J_PARAM));
        KH_TRY(kh_jparser_name(p, &param->value));
        if (kh_jparser_takes_sign(p, '=')) {
            KH_TRY(kh_jparser_expression(p, &value));
            param->a = value;
            defaults = 1;
        } else if (defaults) {
            return kh_jparser_fail(p, "a default behind a parameter that has one");
        }
        kh_jnodes_add(&list, param);
    }
    *out = list.first;
    return kh_jparser_expect(p, ')');
}

/* Parameters and body; a macro starts anew with what encloses it. */
static kh_status macro_body(kh_jparser *p, kh_jnode *macro, const char *end)
{
    int takes = p->takes;
    unsigned loops = p->loops;
    p->takes = 0;
    p->loops = 0;
    KH_TRY(body_to(p, &macro->b, end));
    macro->op = p->takes;
    p->takes = takes;
    p->loops = loops;
    return KH_OK;
}

static kh_status parse_macro(kh_jparser *p, kh_jnode **out)
{
    KH_TRY(kh_jparser_node(p, out, KH_J_DO_MACRO));
    ++p->at;
    KH_TRY(kh_jparser_name(p, &(*out)->value));
    KH_TRY(parameters(p, &(*out)->a));
    return macro_body(p, *out, "endmacro");
}

static kh_status parse_call(kh_jparser *p, kh_jnode **out)
{
    kh_jnode *caller, *call;
    KH_TRY(kh_jparser_node(p, out, KH_J_DO_CALL));
    ++p->at;
    KH_TRY(kh_jparser_node(p, &caller, KH_J_DO_MACRO));
    KH_TRY(kh_jval_literal(p->run, &caller->value, "caller"));
    if (kh_jparser_sign(p, '(')) KH_TRY(parameters(p, &caller->a));
    KH_TRY(kh_jparser_expression(p, &call));
    if (call->kind != KH_J_CALL) return kh_jparser_fail(p, "the call of a macro");
    (*out)->a = call;
    (*out)->b = caller;
    return macro_body(p, caller, "endcall");
}

static kh_status parse_filter(kh_jparser *p, kh_jnode **out)
{
    kh_jnode *given, *filters;
    KH_TRY(kh_jparser_node(p, out, KH_J_DO_FILTER));
    ++p->at;
    KH_TRY(kh_jparser_node(p, &given, KH_J_GIVEN));
    KH_TRY(kh_jparser_filters(p, &filters, given, 1));
    (*out)->b = filters;
    return body_to(p, &(*out)->c, "endfilter");
}

static kh_status parse_with(kh_jparser *p, kh_jnode **out)
{
    kh_jnodes sets = {0};
    KH_TRY(kh_jparser_node(p, out, KH_J_DO_WITH));
    ++p->at;
    while (p->at->kind != KH_J_BLOCK_END) {
        kh_jnode *set, *target, *value;
        if (sets.first) KH_TRY(kh_jparser_expect(p, ','));
        KH_TRY(kh_jparser_node(p, &set, KH_J_DO_SET));
        if (p->at->kind != KH_J_NAME) return kh_jparser_fail(p, "a name");
        KH_TRY(kh_jparser_node(p, &target, KH_J_LOAD));
        KH_TRY(kh_jparser_name(p, &target->value));
        KH_TRY(kh_jparser_expect(p, '='));
        KH_TRY(kh_jparser_expression(p, &value));
        set->a = target;
        set->b = value;
        kh_jnodes_add(&sets, set);
    }
    (*out)->a = sets.first;
    return body_to(p, &(*out)->b, "endwith");
}

static kh_status parse_generation(kh_jparser *p, kh_jnode **out)
{
    KH_TRY(kh_jparser_node(p, out, KH_J_DO_GROUP));
    ++p->at;
    return body_to(p, &(*out)->a, "endgeneration");
}

static kh_status parse_jump(kh_jparser *p, kh_jnode **out)
{
    int leave = kh_jparser_sees(p, "break");
    if (!p->loops) return kh_jparser_fail(p, "a loop around break and continue");
    KH_TRY(kh_jparser_node(p, out, leave ? KH_J_DO_BREAK : KH_J_DO_CONTINUE));
    ++p->at;
    return KH_OK;
}

static kh_status statement(kh_jparser *p, kh_jnode **out)
{
    static const struct {
        const char *name;
        kh_status (*parse)(kh_jparser *, kh_jnode **);
    } known[] = {{"if", parse_if},      {"for", parse_for},
                 {"set", parse_set},    {"macro", parse_macro},
                 {"call", parse_call},  {"filter", parse_filter},
                 {"with", parse_with},  {"generation", parse_generation},
                 {"break", parse_jump}, {"continue", parse_jump}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; ++i)
        if (kh_jparser_sees(p, known[i].name)) return known[i].parse(p, out);
    return kh_jparser_fail(p,
                           "a statement (if, for, set, macro, call, filter, with, generation, raw, "
                           "break, continue) or the end of an open one");
}

static int at_end(const kh_jparser *p, const char *const *ends)
{
    for (; ends && *ends; ++ends)
        if (kh_jparser_sees(p, *ends)) return 1;
    return 0;
}

static kh_status statements(kh_jparser *p, const kh_jnode **out, const char *const *ends)
{
    kh_jnodes list = {0};
    KH_TRY(kh_jrun_enter(p->run));
    for (;;) {
        kh_jnode *node, *value;
        if (p->at->kind == KH_J_END) {
            if (ends) return kh_jparser_fail(p, ends[1] ? "the end of a statement" : ends[0]);
            break;
        }
        if (p->at->kind == KH_J_DATA) {
            KH_TRY(kh_jparser_node(p, &node, KH_J_DO_DATA));
            KH_TRY(kh_jval_text(p->run, &node->value, p->at++->text));
        } else if (p->at->kind == KH_J_PRINT_BEGIN) {
            KH_TRY(kh_jparser_node(p, &node, KH_J_DO_PRINT));
            ++p->at;
            KH_TRY(kh_jparser_tuple(p, &value, 0));
            node->a = value;
            if (p->at->kind != KH_J_PRINT_END) return kh_jparser_fail(p, "the end of the tag (}})");
            ++p->at;
        } else {
            ++p->at; /* only {% stands between statements */
            if (at_end(p, ends)) break;
            KH_TRY(statement(p, &node));
            if (p->at->kind != KH_J_BLOCK_END) return kh_jparser_fail(p, "the end of the tag (%})");
            ++p->at;
        }
        kh_jnodes_add(&list, node);
    }
    kh_jrun_leave(p->run);
    *out = list.first;
    return KH_OK;
}

kh_status kh_jparser_template(kh_jparser *p, const kh_jnode **out)
{
    return statements(p, out, NULL);
}

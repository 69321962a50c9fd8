/* Evaluating expressions of a chat template, and calling what can be called.
 *
 * A walk over the tree: each node makes a value in the memory of the rendering. Every node
 * counts a step and, while it is being evaluated, a level of depth; every function also counts
 * the bytes that it reads or writes. So the three limits bound any template: endless recursion
 * of macros, loops in loops, texts that double.
 *
 * Arguments are evaluated into one array, the named ones behind the others with their names
 * beside them:
 *
 *     f(a, b, x=c)      items  a b c      names  x      positional 2, count 3
 *
 * kh_jdef_call lays them out in the order of the parameters that the table of the callee lists,
 * and refuses what is missing, unknown or given twice in the words that Python has for it. */
#include "jinja/jinja_call.h"

#include "base/fail.h"

#include <string.h>

/* ---- calling ---- */

const kh_jdef *kh_jdef_find(const kh_jdef *const *tables, kh_jtext name)
{
    for (; *tables; ++tables)
        for (const kh_jdef *def = *tables; def->name; ++def)
            if (kh_jtext_is(name, def->name)) return def;
    return NULL;
}

/* The next parameter of a list: its name without '?'. 0 at the end. */
static int next_param(const char **at, kh_jtext *name, int *optional)
{
    while (**at == ' ') ++*at;
    if (!**at) return 0;
    *optional = **at == '?';
    *at += *optional;
    size_t n = strcspn(*at, " ");
    *name = (kh_jtext){.data = *at, .size = n};
    *at += n;
    return 1;
}

static int same_text(kh_jtext a, kh_jtext b)
{
    return a.size == b.size && (!a.size || !memcmp(a.data, b.data, a.size));
}

static kh_status bind(kh_jcall *call, const kh_jdef *def)
{
    const kh_jargs *args = call->all;
    const char *at = def->params;
    size_t n = 0, named = 0;
    kh_jtext name;
    for (int optional; next_param(&at, &name, &optional); ++n) {
        if (n < args->positional) call->arg[n] = args->items[n];
        for (size_t i = args->positional; i < args->count; ++i) {
            if (!same_text(*args->names[i - args->positional], name)) continue;
            if (call->arg[n].kind != KH_J_ABSENT)
                KH_FAIL(KH_ERR_FORMAT, "%s() got multiple values for argument '%.*s'", def->name,
                        (int)name.size, name.data);
            call->arg[n] = args->items[i];
            ++named;
        }
        if (!optional && call->arg[n].kind == KH_J_ABSENT)
            KH_FAIL(KH_ERR_FORMAT, "%s() is missing the argument '%.*s'", def->name, (int)name.size,
                    name.data);
    }
    if (args->positional > n)
        KH_FAIL(KH_ERR_FORMAT, "%s() takes %zu arguments, but %zu were given", def->name, n,
                args->positional);
    if (named < args->count - args->positional)
        KH_FAIL(KH_ERR_FORMAT, "%s() got an unexpected keyword argument", def->name);
    return KH_OK;
}

kh_status kh_jdef_call(kh_jrun *run, const kh_jdef *def, kh_jval self, const kh_jargs *args,
                       kh_jval *out)
{
    kh_jcall call = {.run = run, .self = self, .all = args};
    KH_TRY(kh_jrun_enter(run));
    if (def->params) KH_TRY(bind(&call, def));
    *out = (kh_jval){0};
    KH_TRY(def->body(&call, out));
    kh_jrun_leave(run);
    return KH_OK;
}

kh_status kh_jrun_call(kh_jrun *run, kh_jval callee, const kh_jargs *args, kh_jval *out)
{
    if (callee.kind == KH_J_MACRO) return kh_jmacro_call(run, callee.macro, args, out);
    if (callee.kind == KH_J_FUNCTION)
        return kh_jdef_call(run, callee.function->def, callee.function->self, args, out);
    KH_TRY(kh_jval_need(run, callee));
    KH_FAIL(KH_ERR_FORMAT, "'%s' object is not callable", kh_jval_type(callee));
}

kh_status kh_jcall_text(kh_jcall *call, int n, kh_jtext *out)
{
    kh_jval value = call->arg[n];
    *out = kh_jtext_of("");
    if (value.kind == KH_J_ABSENT) return KH_OK;
    KH_TRY(kh_jval_need(call->run, value));
    if (value.kind != KH_J_STRING)
        KH_FAIL(KH_ERR_FORMAT, "an argument must be str, not %s", kh_jval_type(value));
    *out = *value.s;
    return KH_OK;
}

kh_status kh_jcall_int(kh_jcall *call, int n, int64_t fallback, int64_t *out)
{
    kh_jval value = call->arg[n];
    *out = fallback;
    if (value.kind == KH_J_ABSENT || value.kind == KH_J_NONE) return KH_OK;
    KH_TRY(kh_jval_need(call->run, value));
    if (value.kind != KH_J_INT && value.kind != KH_J_BOOL)
        KH_FAIL(KH_ERR_FORMAT, "'%s' object cannot be interpreted as an integer",
                kh_jval_type(value));
    *out = value.i;
    return KH_OK;
}

int kh_jcall_truth(const kh_jcall *call, int n, int fallback)
{
    return call->arg[n].kind == KH_J_ABSENT ? fallback : kh_jval_truth(call->arg[n]);
}

kh_status kh_jcall_self(kh_jcall *call, kh_jtext *out)
{
    return kh_jval_show(call->run, call->self, out);
}

/* ---- expressions ---- */

kh_status kh_jeval_args(kh_jrun *run, const kh_jnode *list, size_t spare, kh_jargs *out)
{
    size_t n = 0, named = 0;
    *out = (kh_jargs){0};
    for (const kh_jnode *arg = list; arg; arg = arg->next) {
        ++n;
        named += arg->value.kind != KH_J_ABSENT;
    }
    if (n + spare == 0) return KH_OK;
    KH_TRY(kh_jmemory_take(&run->memory, &out->items, n + spare, sizeof *out->items));
    KH_TRY(kh_jmemory_take(&run->memory, &out->names, named + spare + 1, sizeof *out->names));
    for (const kh_jnode *arg = list; arg; arg = arg->next) {
        if (arg->value.kind == KH_J_ABSENT)
            ++out->positional;
        else
            out->names[out->count - out->positional] = arg->value.s;
        KH_TRY(kh_jeval(run, arg->a, &out->items[out->count++]));
    }
    return KH_OK;
}

static kh_status load(kh_jrun *run, const kh_jtext *name, kh_jval *out)
{
    for (const kh_jscope *scope = run->scope; scope; scope = scope->parent)
        for (const kh_jvar *var = scope->vars; var; var = var->next) {
            KH_TRY(kh_jrun_count(run, 0));
            if (!same_text(*var->name, *name)) continue;
            *out = var->value;
            return KH_OK;
        }
    const kh_jdef *def = kh_jdef_find(kh_jfunctions, *name);
    if (def) {
        kh_jfunction *function;
        KH_TRY(kh_jmemory_take(&run->memory, &function, 1, sizeof *function));
        function->def = def;
        *out = (kh_jval){.kind = KH_J_FUNCTION, .function = function};
        return KH_OK;
    }
    KH_TRY(kh_jval_missing(run, out, NULL));
    kh_jmissing *why;
    KH_TRY(kh_jmemory_take(&run->memory, &why, 1, sizeof *why));
    why->name = name;
    out->missing = why;
    return KH_OK;
}

static kh_status make_list(kh_jrun *run, const kh_jnode *node, kh_jval *out)
{
    KH_TRY(kh_jval_list(run, out, node->kind == KH_J_MAKE_LIST ? KH_J_LIST : KH_J_TUPLE, 0));
    for (const kh_jnode *item = node->a; item; item = item->next) {
        kh_jval value;
        KH_TRY(kh_jeval(run, item, &value));
        KH_TRY(kh_jlist_add(run, out->list, value));
    }
    return KH_OK;
}

static kh_status make_dict(kh_jrun *run, const kh_jnode *node, kh_jval *out)
{
    KH_TRY(kh_jval_dict(run, out, KH_J_DICT));
    for (const kh_jnode *pair = node->a; pair; pair = pair->next) {
        kh_jval key, value;
        KH_TRY(kh_jeval(run, pair->a, &key));
        KH_TRY(kh_jeval(run, pair->b, &value));
        KH_TRY(kh_jdict_set(run, out->dict, key, value));
    }
    return KH_OK;
}

static kh_status item(kh_jrun *run, const kh_jnode *node, kh_jval *out)
{
    kh_jval of, key, part[3];
    KH_TRY(kh_jeval(run, node->a, &of));
    if (node->b->kind != KH_J_SLICE) {
        KH_TRY(kh_jeval(run, node->b, &key));
        return kh_jval_item(run, of, key, out);
    }
    const kh_jnode *nodes[] = {node->b->a, node->b->b, node->b->c};
    for (int i = 0; i < 3; ++i) {
        part[i] = kh_jval_none();
        if (nodes[i]) KH_TRY(kh_jeval(run, nodes[i], &part[i]));
    }
    return kh_jval_slice(run, of, part, out);
}

static kh_status call(kh_jrun *run, const kh_jnode *node, kh_jval *out)
{
    kh_jval callee;
    kh_jargs args;
    KH_TRY(kh_jeval(run, node->a, &callee));
    KH_TRY(kh_jval_need(run, callee));
    KH_TRY(kh_jeval_args(run, node->b, 0, &args));
    run->line = node->line;
    return kh_jrun_call(run, callee, &args, out);
}

static kh_status filter_or_test(kh_jrun *run, const kh_jnode *node, kh_jval *out)
{
    int test = node->kind == KH_J_TEST;
    kh_jval self;
    kh_jargs args;
    if (!node->found)
        KH_FAIL(KH_ERR_UNSUPPORTED, "there is no %s named '%.*s'", test ? "test" : "filter",
                (int)(node->value.s->size < 100 ? node->value.s->size : 100), node->value.s->data);
    KH_TRY(kh_jeval(run, node->a, &self));
    KH_TRY(kh_jeval_args(run, node->b, 0, &args));
    run->line = node->line;
    return kh_jdef_call(run, node->found, self, &args, out);
}

static kh_status join(kh_jrun *run, const kh_jnode *node, kh_jval *out)
{
    kh_jout text = {.run = run};
    for (const kh_jnode *part = node->a; part; part = part->next) {
        kh_jval value;
        KH_TRY(kh_jeval(run, part, &value));
        KH_TRY(kh_jout_show(&text, value));
    }
    return kh_jout_value(&text, out);
}

static kh_status compare(kh_jrun *run, const kh_jnode *node, kh_jval *out)
{
    kh_jval left, right;
    int truth = 1;
    KH_TRY(kh_jeval(run, node->a, &left));
    for (const kh_jnode *operand = node->b; operand && truth; operand = operand->next) {
        KH_TRY(kh_jeval(run, operand->a, &right));
        KH_TRY(kh_jval_compare(run, operand->op, left, right, &truth));
        left = right;
    }
    *out = kh_jval_bool(truth);
    return KH_OK;
}

static kh_status choose(kh_jrun *run, const kh_jnode *node, kh_jval *out)
{
    kh_jval when;
    KH_TRY(kh_jeval(run, node->b, &when));
    if (kh_jval_truth(when)) return kh_jeval(run, node->a, out);
    if (node->c) return kh_jeval(run, node->c, out);
    return kh_jval_missing(run, out,
                           "the inline if-expression evaluated to false and no else section "
                           "was defined.");
}

static kh_status prefix(kh_jrun *run, const kh_jnode *node, kh_jval *out)
{
    kh_jval of;
    KH_TRY(kh_jeval(run, node->a, &of));
    if (node->kind == KH_J_NEG) return kh_jval_negate(run, of, out);
    if (node->kind == KH_J_POS) {
        KH_TRY(kh_jval_negate(run, of, out));
        return kh_jval_negate(run, *out, out);
    }
    *out = kh_jval_bool(!kh_jval_truth(of));
    return KH_OK;
}

static kh_status logic(kh_jrun *run, const kh_jnode *node, kh_jval *out)
{
    KH_TRY(kh_jeval(run, node->a, out));
    return kh_jval_truth(*out) == (node->kind == KH_J_AND) ? kh_jeval(run, node->b, out) : KH_OK;
}

static kh_status binary(kh_jrun *run, const kh_jnode *node, kh_jval *out)
{
    kh_jval a, b;
    KH_TRY(kh_jeval(run, node->a, &a));
    KH_TRY(kh_jeval(run, node->b, &b));
    run->line = node->line;
    return kh_jval_binary(run, node->op, a, b, out);
}

static kh_status attr(kh_jrun *run, const kh_jnode *node, kh_jval *out)
{
    kh_jval of;
    KH_TRY(kh_jeval(run, node->a, &of));
    return kh_jval_attr(run, of, node->value.s, out);
}

static kh_status given(kh_jrun *run, kh_jval *out)
{
    for (const kh_jscope *scope = run->scope; scope; scope = scope->parent)
        if (scope->given.kind != KH_J_ABSENT) {
            *out = scope->given;
            return KH_OK;
        }
    return kh_jval_literal(run, out, "");
}

static kh_status evaluate(kh_jrun *run, const kh_jnode *node, kh_jval *out)
{
    switch (node->kind) {
    case KH_J_CONST: *out = node->value; return KH_OK;
    case KH_J_LOAD: return load(run, node->value.s, out);
    case KH_J_MAKE_LIST:
    case KH_J_MAKE_TUPLE: return make_list(run, node, out);
    case KH_J_MAKE_DICT: return make_dict(run, node, out);
    case KH_J_ATTR: return attr(run, node, out);
    case KH_J_ITEM: return item(run, node, out);
    case KH_J_CALL: return call(run, node, out);
    case KH_J_FILTER:
    case KH_J_TEST: return filter_or_test(run, node, out);
    case KH_J_GIVEN: return given(run, out);
    case KH_J_NOT:
    case KH_J_NEG:
    case KH_J_POS: return prefix(run, node, out);
    case KH_J_AND:
    case KH_J_OR: return logic(run, node, out);
    case KH_J_BINARY: return binary(run, node, out);
    case KH_J_JOIN: return join(run, node, out);
    case KH_J_COMPARE: return compare(run, node, out);
    case KH_J_CHOOSE: return choose(run, node, out);
    default: KH_FAIL(KH_ERR_UNSUPPORTED, "this can be assigned to, but not read");
    }
}

kh_status kh_jeval(kh_jrun *run, const kh_jnode *node, kh_jval *out)
{
    *out = (kh_jval){0};
    KH_TRY(kh_jrun_enter(run));
    run->line = node->line;
    KH_TRY(evaluate(run, node, out));
    kh_jrun_leave(run);
    return KH_OK;
}

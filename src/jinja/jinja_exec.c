/* Running statements of a chat template: output, scopes, loops, macros.
 *
 * A scope is a list of variables with a parent. Jinja2's rules, which templates depend on:
 *
 *   - an `if` opens no scope; a loop opens one per iteration, so what a loop sets is forgotten at
 *     the end of each iteration, and a name that is read first is the outer one (hence
 *     namespace());
 *   - a macro's scope hangs below the place where it was defined, not where it is called, and
 *     reads the variables there as they are at the time of the call;
 *   - set blocks, filter blocks, `with` and `generation` have a scope of their own.
 *
 *     root: messages, tools ... <- the template's variables <- one iteration: loop, message ...
 *
 * A loop knows its items in advance (loop.length, loop.last, loop.nextitem): the filter behind
 * `for ... if` runs over all of them first, as Jinja2 does. break and continue are a mark in the
 * rendering that every list of statements looks at; the loop takes it away.
 *
 * Macros, set blocks and filter blocks write into a text of their own, which keeps the origin of
 * every byte. */
#include "jinja/jinja_call.h"

#include "base/fail.h"

#include <string.h>

/* ---- scopes ---- */

kh_status kh_jscope_open(kh_jrun *run)
{
    kh_jscope *scope;
    KH_TRY(kh_jmemory_take(&run->memory, &scope, 1, sizeof *scope));
    scope->parent = run->scope;
    run->scope = scope;
    return KH_OK;
}

void kh_jscope_close(kh_jrun *run)
{
    run->scope = run->scope->parent;
}

kh_status kh_jscope_set(kh_jrun *run, const kh_jtext *name, kh_jval value)
{
    kh_jvar *var;
    for (var = run->scope->vars; var; var = var->next)
        if (var->name->size == name->size && !memcmp(var->name->data, name->data, name->size)) {
            var->value = value;
            return KH_OK;
        }
    KH_TRY(kh_jmemory_take(&run->memory, &var, 1, sizeof *var));
    *var = (kh_jvar){run->scope->vars, name, value};
    run->scope->vars = var;
    return kh_jrun_count(run, 0);
}

static kh_status set_word(kh_jrun *run, const char *word, kh_jval value)
{
    kh_jval name;
    KH_TRY(kh_jval_literal(run, &name, word));
    return kh_jscope_set(run, name.s, value);
}

static kh_status assign(kh_jrun *run, const kh_jnode *target, kh_jval value);

static kh_status unpack(kh_jrun *run, const kh_jnode *target, kh_jval value)
{
    kh_jlist items;
    size_t want = 0, i = 0;
    KH_TRY(kh_jval_need(run, value));
    KH_TRY(kh_jval_iterate(run, value, &items));
    for (const kh_jnode *part = target->a; part; part = part->next) ++want;
    if (items.count < want)
        KH_FAIL(KH_ERR_FORMAT, "not enough values to unpack (expected %zu, got %zu)", want,
                items.count);
    if (items.count > want)
        KH_FAIL(KH_ERR_FORMAT, "too many values to unpack (expected %zu)", want);
    for (const kh_jnode *part = target->a; part; part = part->next)
        KH_TRY(assign(run, part, items.items[i++]));
    return KH_OK;
}

static kh_status assign_attribute(kh_jrun *run, const kh_jnode *target, kh_jval value)
{
    kh_jnode of = {.kind = KH_J_LOAD, .line = target->line, .value = target->value};
    const kh_jtext *name = target->a->value.s;
    kh_jval space;
    KH_TRY(kh_jeval(run, &of, &space));
    if (space.kind != KH_J_NAMESPACE)
        KH_FAIL(KH_ERR_FORMAT, "cannot assign attribute on non-namespace object");
    if (name->size && name->data[0] == '_')
        KH_FAIL(KH_ERR_FORMAT, "an attribute of a namespace cannot begin with an underscore");
    return kh_jdict_set(run, space.dict, target->a->value, value);
}

static kh_status assign(kh_jrun *run, const kh_jnode *target, kh_jval value)
{
    KH_TRY(kh_jrun_enter(run));
    if (target->kind == KH_J_LOAD)
        KH_TRY(kh_jscope_set(run, target->value.s, value));
    else if (target->kind == KH_J_STORE)
        KH_TRY(assign_attribute(run, target, value));
    else
        KH_TRY(unpack(run, target, value));
    kh_jrun_leave(run);
    return KH_OK;
}

/* ---- macros ---- */

/* The value of a parameter: by position, by name, its default, or undefined. */
static kh_status argument(kh_jrun *run, const kh_jnode *macro, const kh_jnode *param, size_t n,
                          const kh_jargs *args, kh_jval *out)
{
    *out = (kh_jval){0};
    if (n < args->positional) *out = args->items[n];
    for (size_t i = args->positional; i < args->count; ++i) {
        if (!kh_jtext_starts(*args->names[i - args->positional], *param->value.s) ||
            args->names[i - args->positional]->size != param->value.s->size)
            continue;
        if (out->kind != KH_J_ABSENT)
            KH_FAIL(KH_ERR_FORMAT, "macro '%.*s' got multiple values for argument '%.*s'",
                    (int)macro->value.s->size, macro->value.s->data, (int)param->value.s->size,
                    param->value.s->data);
        *out = args->items[i];
    }
    if (out->kind != KH_J_ABSENT) return KH_OK;
    if (param->a) return kh_jeval(run, param->a, out);
    return kh_jval_missing(run, out, "a parameter of a macro was not provided");
}

/* What no parameter took: varargs, kwargs and the caller. */
static kh_status bind_rest(kh_jrun *run, const kh_jnode *macro, size_t params, const kh_jargs *args)
{
    kh_jval rest, named;
    KH_TRY(kh_jval_list(run, &rest, KH_J_TUPLE, 0));
    KH_TRY(kh_jval_dict(run, &named, KH_J_DICT));
    for (size_t i = params; i < args->positional; ++i)
        KH_TRY(kh_jlist_add(run, rest.list, args->items[i]));
    for (size_t i = args->positional; i < args->count; ++i) {
        const kh_jtext *name = args->names[i - args->positional];
        const kh_jnode *param = macro->a;
        while (param &&
               !(param->value.s->size == name->size && kh_jtext_starts(*name, *param->value.s)))
            param = param->next;
        if (kh_jtext_is(*name, "caller") && macro->op & KH_J_TAKES_CALLER)
            KH_TRY(set_word(run, "caller", args->items[i]));
        else if (!param)
            KH_TRY(kh_jdict_set(run, named.dict, (kh_jval){.kind = KH_J_STRING, .s = name},
                                args->items[i]));
    }
    if (!(macro->op & KH_J_TAKES_REST) && rest.list->count)
        KH_FAIL(KH_ERR_FORMAT, "macro '%.*s' takes not more than %zu argument(s)",
                (int)macro->value.s->size, macro->value.s->data, params);
    if (!(macro->op & KH_J_TAKES_NAMED) && named.dict->count)
        KH_FAIL(KH_ERR_FORMAT, "macro '%.*s' takes no keyword argument '%.*s'",
                (int)macro->value.s->size, macro->value.s->data,
                (int)named.dict->entries[0].key.s->size, named.dict->entries[0].key.s->data);
    if (macro->op & KH_J_TAKES_REST) KH_TRY(set_word(run, "varargs", rest));
    return macro->op & KH_J_TAKES_NAMED ? set_word(run, "kwargs", named) : KH_OK;
}

kh_status kh_jmacro_call(kh_jrun *run, const kh_jmacro *macro, const kh_jargs *args, kh_jval *out)
{
    kh_jscope *outer = run->scope;
    enum kh_jjump jump = run->jump;
    kh_jout text = {.run = run};
    size_t n = 0;
    KH_TRY(kh_jrun_enter(run));
    run->scope = macro->scope;
    run->jump = KH_J_GO_ON;
    KH_TRY(kh_jscope_open(run));
    for (const kh_jnode *param = macro->node->a; param; param = param->next) {
        kh_jval value;
        KH_TRY(argument(run, macro->node, param, n++, args, &value));
        KH_TRY(kh_jscope_set(run, param->value.s, value));
    }
    KH_TRY(bind_rest(run, macro->node, n, args));
    KH_TRY(kh_jexec(run, macro->node->b, &text));
    run->scope = outer;
    run->jump = jump;
    kh_jrun_leave(run);
    return kh_jout_value(&text, out);
}

static kh_status make_macro(kh_jrun *run, const kh_jnode *node, kh_jval *out)
{
    kh_jmacro *macro;
    KH_TRY(kh_jmemory_take(&run->memory, &macro, 1, sizeof *macro));
    *macro = (kh_jmacro){node, run->scope};
    *out = (kh_jval){.kind = KH_J_MACRO, .macro = macro};
    return KH_OK;
}

static kh_status do_call(kh_jrun *run, const kh_jnode *node, kh_jout *out)
{
    kh_jval callee, caller, name, result;
    kh_jargs args;
    KH_TRY(kh_jeval(run, node->a->a, &callee));
    KH_TRY(kh_jval_need(run, callee));
    KH_TRY(kh_jeval_args(run, node->a->b, 1, &args));
    KH_TRY(make_macro(run, node->b, &caller));
    KH_TRY(kh_jval_literal(run, &name, "caller"));
    args.names[args.count - args.positional] = name.s;
    args.items[args.count++] = caller;
    KH_TRY(kh_jrun_call(run, callee, &args, &result));
    return kh_jout_show(out, result);
}

/* ---- statements ---- */

/* A block with a text and a scope of its own. */
static kh_status capture(kh_jrun *run, const kh_jnode *body, kh_jval *out)
{
    kh_jout text = {.run = run};
    KH_TRY(kh_jscope_open(run));
    KH_TRY(kh_jexec(run, body, &text));
    kh_jscope_close(run);
    return kh_jout_value(&text, out);
}

static kh_status filtered(kh_jrun *run, const kh_jnode *node, kh_jval *out)
{
    kh_jval text;
    KH_TRY(capture(run, node->c, &text));
    KH_TRY(kh_jscope_open(run));
    run->scope->given = text;
    KH_TRY(kh_jeval(run, node->b, out));
    kh_jscope_close(run);
    return KH_OK;
}

static kh_status do_if(kh_jrun *run, const kh_jnode *node, kh_jout *out)
{
    for (const kh_jnode *branch = node->a; branch; branch = branch->next) {
        kh_jval when;
        KH_TRY(kh_jeval(run, branch->a, &when));
        if (kh_jval_truth(when)) return kh_jexec(run, branch->b, out);
    }
    return kh_jexec(run, node->b, out);
}

/* The items that pass the filter of a loop. */
static kh_status passing(kh_jrun *run, const kh_jnode *node, kh_jlist *items)
{
    kh_jlist kept = {0};
    for (size_t i = 0; i < items->count; ++i) {
        kh_jval pass;
        KH_TRY(kh_jscope_open(run));
        KH_TRY(assign(run, node->a, items->items[i]));
        KH_TRY(kh_jeval(run, node->e, &pass));
        kh_jscope_close(run);
        if (kh_jval_truth(pass)) KH_TRY(kh_jlist_add(run, &kept, items->items[i]));
    }
    *items = kept;
    return KH_OK;
}

static kh_status do_for(kh_jrun *run, const kh_jnode *node, kh_jout *out)
{
    kh_jval over;
    kh_jlist *items;
    kh_jloop *loop;
    int finished = 0; /* an iteration came to its end; if none did, Jinja2 runs the else */
    KH_TRY(kh_jmemory_take(&run->memory, &items, 1, sizeof *items));
    KH_TRY(kh_jeval(run, node->b, &over));
    KH_TRY(kh_jval_iterate(run, over, items));
    if (node->e) KH_TRY(passing(run, node, items));
    KH_TRY(kh_jmemory_take(&run->memory, &loop, 1, sizeof *loop));
    loop->items = items;
    for (; loop->index < items->count && run->jump != KH_J_BREAK; ++loop->index) {
        run->jump = KH_J_GO_ON;
        KH_TRY(kh_jscope_open(run));
        KH_TRY(set_word(run, "loop", (kh_jval){.kind = KH_J_LOOP, .loop = loop}));
        KH_TRY(assign(run, node->a, items->items[loop->index]));
        KH_TRY(kh_jexec(run, node->c, out));
        kh_jscope_close(run);
        finished |= run->jump == KH_J_GO_ON;
    }
    run->jump = KH_J_GO_ON;
    if (finished || !node->d) return KH_OK;
    KH_TRY(kh_jscope_open(run));
    KH_TRY(kh_jexec(run, node->d, out));
    kh_jscope_close(run);
    return KH_OK;
}

static kh_status do_with(kh_jrun *run, const kh_jnode *node, kh_jout *out)
{
    kh_jscope *outer = run->scope, *inner;
    KH_TRY(kh_jscope_open(run));
    inner = run->scope;
    for (const kh_jnode *set = node->a; set; set = set->next) {
        kh_jval value;
        run->scope = outer;
        KH_TRY(kh_jeval(run, set->b, &value));
        run->scope = inner;
        KH_TRY(assign(run, set->a, value));
    }
    KH_TRY(kh_jexec(run, node->b, out));
    run->scope = outer;
    return KH_OK;
}

static kh_status do_group(kh_jrun *run, const kh_jnode *node, kh_jout *out)
{
    KH_TRY(kh_jscope_open(run));
    KH_TRY(kh_jexec(run, node->a, out));
    kh_jscope_close(run);
    return KH_OK;
}

static kh_status execute(kh_jrun *run, const kh_jnode *node, kh_jout *out)
{
    kh_jval value;
    switch (node->kind) {
    case KH_J_DO_DATA: return kh_jout_add(out, *node->value.s);
    case KH_J_DO_PRINT: KH_TRY(kh_jeval(run, node->a, &value)); return kh_jout_show(out, value);
    case KH_J_DO_IF: return do_if(run, node, out);
    case KH_J_DO_FOR: return do_for(run, node, out);
    case KH_J_DO_SET: KH_TRY(kh_jeval(run, node->b, &value)); return assign(run, node->a, value);
    case KH_J_DO_SET_BLOCK: KH_TRY(filtered(run, node, &value)); return assign(run, node->a, value);
    case KH_J_DO_MACRO:
        KH_TRY(make_macro(run, node, &value));
        return kh_jscope_set(run, node->value.s, value);
    case KH_J_DO_CALL: return do_call(run, node, out);
    case KH_J_DO_FILTER: KH_TRY(filtered(run, node, &value)); return kh_jout_show(out, value);
    case KH_J_DO_WITH: return do_with(run, node, out);
    case KH_J_DO_GROUP: return do_group(run, node, out);
    case KH_J_DO_BREAK: run->jump = KH_J_BREAK; return KH_OK;
    case KH_J_DO_CONTINUE: run->jump = KH_J_CONTINUE; return KH_OK;
    default: KH_FAIL(KH_ERR_UNSUPPORTED, "a statement is expected");
    }
}

kh_status kh_jexec(kh_jrun *run, const kh_jnode *list, kh_jout *out)
{
    KH_TRY(kh_jrun_enter(run));
    for (const kh_jnode *node = list; node && run->jump == KH_J_GO_ON; node = node->next) {
        run->line = node->line;
        KH_TRY(kh_jrun_count(run, 0));
        KH_TRY(execute(run, node, out));
        if (out->size > run->output_limit)
            KH_FAIL(KH_ERR_FORMAT, "it writes more than %zu bytes", run->output_limit);
    }
    kh_jrun_leave(run);
    return KH_OK;
}

/* Expressions of a chat template, parsed by recursive descent with Jinja2's levels:
 *
 *     a if b else c  <  or  <  and  <  not  <  comparisons (chained; in, not in)  <  + -  <  ~
 *     <  * / // %  <  **  <  unary - +  <  names, literals, brackets
 *     with .attribute [item] (call) behind them, then |filter and `is test`
 *
 * Two oddities are the reference's: ~ binds tighter than +, and a filter behind a unary minus
 * takes the negative number. Left-associative chains are loops, so only brackets and prefixes
 * nest; their depth is counted. Filters and tests are looked up here but missed only when they
 * are run: templates name ones in branches that are never taken. */
#include "jinja/jinja_tree.h"

#include "base/fail.h"
#include "jinja/jinja_call.h"

#include <stdio.h>
#include <string.h>

kh_status kh_jparser_node(kh_jparser *p, kh_jnode **out, kh_jnode_kind kind)
{
    KH_TRY(kh_jmemory_take(&p->run->memory, out, 1, sizeof **out));
    (*out)->kind = kind;
    (*out)->line = p->at->line;
    return kh_jrun_count(p->run, 0);
}

void kh_jnodes_add(kh_jnodes *list, kh_jnode *node)
{
    if (list->last)
        list->last->next = node;
    else
        list->first = node;
    list->last = node;
}

static int name_is(const kh_jtoken *token, const char *name)
{
    return token->kind == KH_J_NAME && kh_jtext_is(token->text, name);
}

int kh_jparser_sees(const kh_jparser *p, const char *name)
{
    return name_is(p->at, name);
}

int kh_jparser_takes(kh_jparser *p, const char *name)
{
    int yes = kh_jparser_sees(p, name);
    p->at += yes;
    return yes;
}

int kh_jparser_sign(const kh_jparser *p, int sign)
{
    return p->at->kind == KH_J_SIGN && p->at->sign == sign;
}

int kh_jparser_takes_sign(kh_jparser *p, int sign)
{
    int yes = kh_jparser_sign(p, sign);
    p->at += yes;
    return yes;
}

kh_status kh_jparser_fail(kh_jparser *p, const char *expected)
{
    const kh_jtoken *t = p->at;
    p->run->line = t->line;
    switch (t->kind) {
    case KH_J_NAME:
        KH_FAIL(KH_ERR_UNSUPPORTED, "expected %s, found '%.*s'", expected,
                (int)(t->text.size < 100 ? t->text.size : 100), t->text.data);
    case KH_J_SIGN:
        KH_FAIL(KH_ERR_UNSUPPORTED, "expected %s, found '%c%.1s'", expected, (char)(t->sign & 127),
                (const char[]){(char)(t->sign >> 8), 0});
    case KH_J_VALUE: KH_FAIL(KH_ERR_UNSUPPORTED, "expected %s, found a literal", expected);
    case KH_J_END:
        KH_FAIL(KH_ERR_UNSUPPORTED, "expected %s, found the end of the template", expected);
    default: KH_FAIL(KH_ERR_UNSUPPORTED, "expected %s, found the end of the tag", expected);
    }
}

kh_status kh_jparser_expect(kh_jparser *p, int sign)
{
    char what[] = {'\'', (char)(sign & 127), '\'', 0};
    return kh_jparser_takes_sign(p, sign) ? KH_OK : kh_jparser_fail(p, what);
}

kh_status kh_jparser_name(kh_jparser *p, kh_jval *out)
{
    if (p->at->kind != KH_J_NAME) return kh_jparser_fail(p, "a name");
    return kh_jval_text(p->run, out, p->at++->text);
}

/* ---- primary ---- */

static kh_status constant(kh_jparser *p, kh_jnode **out, kh_jval value)
{
    KH_TRY(kh_jparser_node(p, out, KH_J_CONST));
    (*out)->value = value;
    return KH_OK;
}

static kh_status name(kh_jparser *p, kh_jnode **out)
{
    const kh_jtoken *t = p->at;
    int yes = name_is(t, "true") || name_is(t, "True");
    if (yes || name_is(t, "false") || name_is(t, "False")) {
        KH_TRY(constant(p, out, kh_jval_bool(yes)));
    } else if (name_is(t, "none") || name_is(t, "None")) {
        KH_TRY(constant(p, out, kh_jval_none()));
    } else {
        KH_TRY(kh_jparser_node(p, out, KH_J_LOAD));
        KH_TRY(kh_jval_text(p->run, &(*out)->value, t->text));
        if (name_is(t, "varargs")) p->takes |= KH_J_TAKES_REST;
        if (name_is(t, "kwargs")) p->takes |= KH_J_TAKES_NAMED;
        if (name_is(t, "caller")) p->takes |= KH_J_TAKES_CALLER;
    }
    ++p->at;
    return KH_OK;
}

static kh_status literal(kh_jparser *p, kh_jnode **out)
{
    KH_TRY(constant(p, out, p->at->value));
    if (p->at++->value.kind != KH_J_STRING) return KH_OK;
    kh_jout text = {.run = p->run};
    if (p->at->kind != KH_J_VALUE || p->at->value.kind != KH_J_STRING) return KH_OK;
    KH_TRY(kh_jout_add(&text, *(*out)->value.s));
    while (p->at->kind == KH_J_VALUE && p->at->value.kind == KH_J_STRING)
        KH_TRY(kh_jout_add(&text, *p->at++->value.s));
    return kh_jout_value(&text, &(*out)->value);
}

static kh_status list(kh_jparser *p, kh_jnode **out)
{
    kh_jnodes items = {0};
    KH_TRY(kh_jparser_node(p, out, KH_J_MAKE_LIST));
    KH_TRY(kh_jparser_expect(p, '['));
    while (!kh_jparser_sign(p, ']')) {
        kh_jnode *item;
        if (items.first) KH_TRY(kh_jparser_expect(p, ','));
        if (kh_jparser_sign(p, ']')) break;
        KH_TRY(kh_jparser_expression(p, &item));
        kh_jnodes_add(&items, item);
    }
    (*out)->a = items.first;
    return kh_jparser_expect(p, ']');
}

static kh_status dict(kh_jparser *p, kh_jnode **out)
{
    kh_jnodes pairs = {0};
    KH_TRY(kh_jparser_node(p, out, KH_J_MAKE_DICT));
    KH_TRY(kh_jparser_expect(p, '{'));
    while (!kh_jparser_sign(p, '}')) {
        kh_jnode *pair, *key, *value;
        if (pairs.first) KH_TRY(kh_jparser_expect(p, ','));
        if (kh_jparser_sign(p, '}')) break;
        KH_TRY(kh_jparser_node(p, &pair, KH_J_PAIR));
        KH_TRY(kh_jparser_expression(p, &key));
        KH_TRY(kh_jparser_expect(p, ':'));
        KH_TRY(kh_jparser_expression(p, &value));
        pair->a = key;
        pair->b = value;
        kh_jnodes_add(&pairs, pair);
    }
    (*out)->a = pairs.first;
    return kh_jparser_expect(p, '}');
}

static kh_status primary(kh_jparser *p, kh_jnode **out)
{
    if (p->at->kind == KH_J_NAME) return name(p, out);
    if (p->at->kind == KH_J_VALUE) return literal(p, out);
    if (kh_jparser_sign(p, '[')) return list(p, out);
    if (kh_jparser_sign(p, '{')) return dict(p, out);
    if (!kh_jparser_takes_sign(p, '(')) return kh_jparser_fail(p, "an expression");
    KH_TRY(kh_jparser_tuple(p, out, KH_J_PARENTHESES));
    return kh_jparser_expect(p, ')');
}

/* ---- what stands behind ---- */

static kh_status arguments(kh_jparser *p, const kh_jnode **out)
{
    kh_jnodes args = {0};
    int named = 0;
    KH_TRY(kh_jparser_expect(p, '('));
    while (!kh_jparser_sign(p, ')')) {
        kh_jnode *arg, *value;
        if (args.first) KH_TRY(kh_jparser_expect(p, ','));
        if (kh_jparser_sign(p, ')')) break;
        KH_TRY(kh_jparser_node(p, &arg, KH_J_ARG));
        if (p->at->kind == KH_J_NAME && p->at[1].kind == KH_J_SIGN && p->at[1].sign == '=') {
            KH_TRY(kh_jparser_name(p, &arg->value));
            ++p->at;
            named = 1;
        } else if (named) {
            return kh_jparser_fail(p, "a named argument behind a named one");
        }
        KH_TRY(kh_jparser_expression(p, &value));
        arg->a = value;
        kh_jnodes_add(&args, arg);
    }
    *out = args.first;
    return kh_jparser_expect(p, ')');
}

static kh_status slice_part(kh_jparser *p, const kh_jnode **out)
{
    kh_jnode *part = NULL;
    if (!kh_jparser_sign(p, ':') && !kh_jparser_sign(p, ']'))
        KH_TRY(kh_jparser_expression(p, &part));
    *out = part;
    return KH_OK;
}

static kh_status subscript(kh_jparser *p, kh_jnode **out)
{
    kh_jnode *slice;
    KH_TRY(kh_jparser_node(p, &slice, KH_J_SLICE));
    KH_TRY(slice_part(p, &slice->a));
    if (!kh_jparser_takes_sign(p, ':')) {
        if (!slice->a) return kh_jparser_fail(p, "an item or a slice");
        KH_TRY(kh_jmemory_take(&p->run->memory, out, 1, sizeof **out));
        **out = *slice->a;
        return KH_OK;
    }
    KH_TRY(slice_part(p, &slice->b));
    if (kh_jparser_takes_sign(p, ':')) KH_TRY(slice_part(p, &slice->c));
    *out = slice;
    return KH_OK;
}

static kh_status postfix(kh_jparser *p, kh_jnode **out)
{
    for (;;) {
        kh_jnode *node, *key = NULL, *of = *out;
        if (kh_jparser_sign(p, '(')) {
            KH_TRY(kh_jparser_node(p, &node, KH_J_CALL));
            KH_TRY(arguments(p, &node->b));
        } else if (kh_jparser_takes_sign(p, '.')) {
            KH_TRY(kh_jparser_node(p, &node, KH_J_ATTR));
            if (p->at->kind == KH_J_VALUE && p->at->value.kind == KH_J_INT) {
                node->kind = KH_J_ITEM;
                KH_TRY(constant(p, &key, p->at++->value));
            } else {
                KH_TRY(kh_jparser_name(p, &node->value));
            }
        } else if (kh_jparser_takes_sign(p, '[')) {
            KH_TRY(kh_jparser_node(p, &node, KH_J_ITEM));
            KH_TRY(subscript(p, &key));
            KH_TRY(kh_jparser_expect(p, ']'));
        } else {
            return KH_OK;
        }
        if (key) node->b = key;
        node->a = of;
        *out = node;
    }
}

/* The name of a filter or test; parts behind dots belong to it. */
static kh_status dotted(kh_jparser *p, kh_jnode *node, const kh_jdef *const *tables)
{
    KH_TRY(kh_jparser_name(p, &node->value));
    if (kh_jparser_sign(p, '.')) return kh_jparser_fail(p, "a name without dots");
    node->found = kh_jdef_find(tables, *node->value.s);
    return KH_OK;
}

static kh_status filter(kh_jparser *p, kh_jnode **out, kh_jnode *input)
{
    KH_TRY(kh_jparser_node(p, out, KH_J_FILTER));
    (*out)->a = input;
    KH_TRY(dotted(p, *out, kh_jfilters));
    return kh_jparser_sign(p, '(') ? arguments(p, &(*out)->b) : KH_OK;
}

kh_status kh_jparser_filters(kh_jparser *p, kh_jnode **out, kh_jnode *input, int started)
{
    *out = input;
    while (started || kh_jparser_takes_sign(p, '|')) {
        KH_TRY(filter(p, out, input));
        input = *out;
        started = 0;
    }
    return KH_OK;
}

static int starts_argument(const kh_jparser *p)
{
    if (p->at->kind == KH_J_VALUE || kh_jparser_sign(p, '(') || kh_jparser_sign(p, '[') ||
        kh_jparser_sign(p, '{'))
        return 1;
    return p->at->kind == KH_J_NAME && !kh_jparser_sees(p, "else") && !kh_jparser_sees(p, "or") &&
           !kh_jparser_sees(p, "and");
}

static kh_status test(kh_jparser *p, kh_jnode **out, kh_jnode *input)
{
    kh_jnode *node, *arg, *value;
    int negated = kh_jparser_takes(p, "not");
    KH_TRY(kh_jparser_node(p, &node, KH_J_TEST));
    node->a = input;
    KH_TRY(dotted(p, node, kh_jtests));
    if (kh_jparser_sign(p, '(')) {
        KH_TRY(arguments(p, &node->b));
    } else if (starts_argument(p)) {
        if (kh_jparser_sees(p, "is")) return kh_jparser_fail(p, "one test, not a chain of them");
        KH_TRY(kh_jparser_node(p, &arg, KH_J_ARG));
        KH_TRY(primary(p, &value));
        KH_TRY(postfix(p, &value));
        arg->a = value;
        node->b = arg;
    }
    *out = node;
    if (!negated) return KH_OK;
    KH_TRY(kh_jparser_node(p, out, KH_J_NOT));
    (*out)->a = node;
    return KH_OK;
}

static kh_status filters_and_tests(kh_jparser *p, kh_jnode **out)
{
    for (;;) {
        kh_jnode *node;
        if (kh_jparser_sign(p, '|')) {
            KH_TRY(kh_jparser_filters(p, out, *out, 0));
        } else if (kh_jparser_takes(p, "is")) {
            KH_TRY(test(p, out, *out));
        } else if (kh_jparser_sign(p, '(')) {
            KH_TRY(kh_jparser_node(p, &node, KH_J_CALL));
            KH_TRY(arguments(p, &node->b));
            node->a = *out;
            *out = node;
        } else {
            return KH_OK;
        }
    }
}

/* ---- operators ---- */

static kh_status unary(kh_jparser *p, kh_jnode **out, int filtered)
{
    KH_TRY(kh_jrun_enter(p->run));
    int sign = kh_jparser_sign(p, '-') ? KH_J_NEG : KH_J_POS;
    if (kh_jparser_sign(p, '-') || kh_jparser_sign(p, '+')) {
        kh_jnode *of;
        KH_TRY(kh_jparser_node(p, out, (kh_jnode_kind)sign));
        ++p->at;
        KH_TRY(unary(p, &of, 0));
        (*out)->a = of;
    } else {
        KH_TRY(primary(p, out));
    }
    KH_TRY(postfix(p, out));
    if (filtered) KH_TRY(filters_and_tests(p, out));
    kh_jrun_leave(p->run);
    return KH_OK;
}

kh_status kh_jparser_unary(kh_jparser *p, kh_jnode **out)
{
    return unary(p, out, 1);
}

enum { POWER, PRODUCT, TILDE, SUM };

static int level_of(const kh_jtoken *t)
{
    if (t->kind != KH_J_SIGN) return -1;
    switch (t->sign) {
    case KH_J_SIGN2('*', '*'): return POWER;
    case '*':
    case '/':
    case '%':
    case KH_J_SIGN2('/', '/'): return PRODUCT;
    case '~': return TILDE;
    case '+':
    case '-': return SUM;
    default: return -1;
    }
}

/* The operators of one level, from left to right; TILDE makes one list of all its operands. */
static kh_status binary(kh_jparser *p, kh_jnode **out, int level)
{
    if (level < POWER) return unary(p, out, 1);
    KH_TRY(binary(p, out, level - 1));
    kh_jnodes parts = {0};
    while (level_of(p->at) == level) {
        kh_jnode *node, *right;
        KH_TRY(kh_jparser_node(p, &node, KH_J_BINARY));
        node->op = p->at++->sign;
        KH_TRY(binary(p, &right, level - 1));
        if (level == TILDE) {
            if (!parts.first) kh_jnodes_add(&parts, *out);
            kh_jnodes_add(&parts, right);
            node->kind = KH_J_JOIN;
            node->a = parts.first;
        } else {
            node->a = *out;
            node->b = right;
        }
        *out = node;
    }
    return KH_OK;
}

/* The sign of a comparison that is next, 0 for none; takes it. */
static int comparison(kh_jparser *p)
{
    static const int signs[] = {'<',
                                '>',
                                KH_J_SIGN2('=', '='),
                                KH_J_SIGN2('!', '='),
                                KH_J_SIGN2('<', '='),
                                KH_J_SIGN2('>', '=')};
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; ++i)
        if (kh_jparser_takes_sign(p, signs[i])) return signs[i];
    if (kh_jparser_takes(p, "in")) return 'i';
    if (!name_is(p->at, "not") || !name_is(p->at + 1, "in")) return 0;
    p->at += 2;
    return 'n';
}

static kh_status compare(kh_jparser *p, kh_jnode **out)
{
    kh_jnodes operands = {0};
    KH_TRY(binary(p, out, SUM));
    for (int sign; (sign = comparison(p)) != 0;) {
        kh_jnode *operand, *value;
        KH_TRY(kh_jparser_node(p, &operand, KH_J_OPERAND));
        KH_TRY(binary(p, &value, SUM));
        operand->op = sign;
        operand->a = value;
        kh_jnodes_add(&operands, operand);
    }
    if (!operands.first) return KH_OK;
    kh_jnode *first = *out;
    KH_TRY(kh_jparser_node(p, out, KH_J_COMPARE));
    (*out)->a = first;
    (*out)->b = operands.first;
    return KH_OK;
}

static kh_status negation(kh_jparser *p, kh_jnode **out)
{
    if (!kh_jparser_takes(p, "not")) return compare(p, out);
    kh_jnode *of;
    KH_TRY(kh_jrun_enter(p->run));
    KH_TRY(kh_jparser_node(p, out, KH_J_NOT));
    KH_TRY(negation(p, &of));
    kh_jrun_leave(p->run);
    (*out)->a = of;
    return KH_OK;
}

static kh_status logic(kh_jparser *p, kh_jnode **out, const char *word)
{
    int is_or = word[0] == 'o';
    KH_TRY(is_or ? logic(p, out, "and") : negation(p, out));
    while (kh_jparser_takes(p, word)) {
        kh_jnode *node, *right;
        KH_TRY(kh_jparser_node(p, &node, is_or ? KH_J_OR : KH_J_AND));
        KH_TRY(is_or ? logic(p, &right, "and") : negation(p, &right));
        node->a = *out;
        node->b = right;
        *out = node;
    }
    return KH_OK;
}

kh_status kh_jparser_expression(kh_jparser *p, kh_jnode **out)
{
    KH_TRY(kh_jrun_enter(p->run));
    KH_TRY(logic(p, out, "or"));
    while (kh_jparser_takes(p, "if")) {
        kh_jnode *node, *when, *otherwise = NULL;
        KH_TRY(kh_jparser_node(p, &node, KH_J_CHOOSE));
        KH_TRY(logic(p, &when, "or"));
        if (kh_jparser_takes(p, "else")) KH_TRY(kh_jparser_expression(p, &otherwise));
        node->a = *out;
        node->b = when;
        node->c = otherwise;
        *out = node;
    }
    kh_jrun_leave(p->run);
    return KH_OK;
}

static int tuple_ends(const kh_jparser *p, int many)
{
    return p->at->kind == KH_J_PRINT_END || p->at->kind == KH_J_BLOCK_END ||
           p->at->kind == KH_J_END || kh_jparser_sign(p, ')') || kh_jparser_sign(p, '=') ||
           (many && kh_jparser_sees(p, "in"));
}

/* Parts are expressions, or what can be assigned to. */
static kh_status tuple(kh_jparser *p, kh_jnode **out, int flags,
                       kh_status (*part)(kh_jparser *, kh_jnode **))
{
    kh_jnodes parts = {0};
    int many = 0;
    for (;;) {
        kh_jnode *one;
        if (tuple_ends(p, many)) break;
        KH_TRY(part(p, &one));
        kh_jnodes_add(&parts, one);
        if (!kh_jparser_takes_sign(p, ',')) break;
        many = 1;
    }
    if (!many && parts.first) {
        *out = parts.first;
        return KH_OK;
    }
    if (!many && !(flags & KH_J_PARENTHESES)) return kh_jparser_fail(p, "an expression");
    KH_TRY(kh_jparser_node(p, out, KH_J_MAKE_TUPLE));
    (*out)->a = parts.first;
    return KH_OK;
}

static kh_status without_choice(kh_jparser *p, kh_jnode **out)
{
    return logic(p, out, "or");
}

kh_status kh_jparser_tuple(kh_jparser *p, kh_jnode **out, int flags)
{
    return tuple(p, out, flags, flags & KH_J_NO_CHOICE ? without_choice : kh_jparser_expression);
}

static kh_status target_part(kh_jparser *p, kh_jnode **out)
{
    if (kh_jparser_takes_sign(p, '(')) {
        KH_TRY(kh_jrun_enter(p->run));
        KH_TRY(kh_jparser_target(p, out));
        kh_jrun_leave(p->run);
        return kh_jparser_expect(p, ')');
    }
    if (p->at->kind != KH_J_NAME) return kh_jparser_fail(p, "a name to assign to");
    KH_TRY(name(p, out));
    if ((*out)->kind != KH_J_LOAD) KH_FAIL(KH_ERR_UNSUPPORTED, "can't assign to a constant");
    if (!kh_jparser_takes_sign(p, '.')) return KH_OK;
    kh_jnode *attribute;
    KH_TRY(kh_jparser_node(p, &attribute, KH_J_CONST));
    KH_TRY(kh_jparser_name(p, &attribute->value));
    (*out)->kind = KH_J_STORE;
    (*out)->a = attribute;
    return KH_OK;
}

kh_status kh_jparser_target(kh_jparser *p, kh_jnode **out)
{
    return tuple(p, out, 0, target_part);
}

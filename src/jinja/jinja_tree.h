/* jinja/jinja_tree.h: a chat template as tokens and as a tree. Private to gen/jinja*. */
#ifndef KH_JINJA_JINJA_TREE_H
#define KH_JINJA_JINJA_TREE_H

#include "jinja/jinja_value.h"

/* ---- tokens ---- */

typedef enum kh_jtoken_kind {
    KH_J_END,
    KH_J_DATA,
    KH_J_BLOCK_BEGIN, /* {% */
    KH_J_BLOCK_END,
    KH_J_PRINT_BEGIN, /* {{ */
    KH_J_PRINT_END,
    KH_J_NAME,
    KH_J_VALUE, /* a literal string or number */
    KH_J_SIGN   /* an operator; its first two bytes are in `sign` */
} kh_jtoken_kind;

#define KH_J_SIGN2(a, b) ((a) | (b) << 8) /* the sign of "**" and its like */

typedef struct kh_jtoken {
    kh_jtoken_kind kind;
    unsigned line;
    int sign;
    kh_jtext text; /* DATA, NAME: in the memory of the tree */
    kh_jval value; /* VALUE */
} kh_jtoken;

/* All tokens of a template, an END behind them, in the memory of `run`. run->line is where it
 * failed. */
kh_status kh_jtoken_list(kh_jrun *run, kh_jtoken **out, const char *text, size_t size);

/* ---- the tree ---- */

typedef enum kh_jnode_kind {
    /* statements */
    KH_J_DO_DATA,      /* value: the text */
    KH_J_DO_PRINT,     /* a */
    KH_J_DO_IF,        /* a: list of BRANCH; b: else */
    KH_J_DO_BRANCH,    /* a: test; b: body */
    KH_J_DO_FOR,       /* a: target; b: what; c: body; d: else; e: the filter behind `if` */
    KH_J_DO_SET,       /* a: target; b: expression */
    KH_J_DO_SET_BLOCK, /* a: target; b: filters around GIVEN or NULL; c: body */
    KH_J_DO_MACRO,     /* value: name; a: list of PARAM; b: body; op: KH_J_TAKES_... */
    KH_J_DO_CALL,      /* a: the call; b: a MACRO for `caller` */
    KH_J_DO_FILTER,    /* b: filters around GIVEN; c: body */
    KH_J_DO_WITH,      /* a: list of SET; b: body */
    KH_J_DO_GROUP,     /* a: body */
    KH_J_DO_BREAK,
    KH_J_DO_CONTINUE,
    KH_J_PARAM, /* value: name; a: default or NULL */
    /* expressions */
    KH_J_CONST,      /* value */
    KH_J_LOAD,       /* value: name */
    KH_J_STORE,      /* value: name of a namespace; a: CONST, its attribute */
    KH_J_MAKE_LIST,  /* a: list */
    KH_J_MAKE_TUPLE, /* a: list; a target when it stands in one */
    KH_J_MAKE_DICT,  /* a: list of PAIR */
    KH_J_PAIR,       /* a: key; b: value */
    KH_J_ATTR,       /* a; value: name */
    KH_J_ITEM,       /* a; b: the key, or a SLICE */
    KH_J_SLICE,      /* a, b, c: start, end, step or NULL */
    KH_J_CALL,       /* a; b: list of ARG */
    KH_J_ARG,        /* a; value: its keyword or ABSENT */
    KH_J_FILTER,     /* a; value: name; b: list of ARG */
    KH_J_TEST,       /* the same */
    KH_J_GIVEN,      /* the text of the block that a filter stands on */
    KH_J_NOT,
    KH_J_NEG,
    KH_J_POS,
    KH_J_AND,
    KH_J_OR,
    KH_J_BINARY,  /* a, b; op: the sign */
    KH_J_JOIN,    /* a: list: x ~ y ~ z */
    KH_J_COMPARE, /* a; b: list of OPERAND */
    KH_J_OPERAND, /* op: the sign, 'i' for in, 'n' for not in; a */
    KH_J_CHOOSE   /* a if b else c (or NULL) */
} kh_jnode_kind;

typedef struct kh_jnode kh_jnode;
struct kh_jnode {
    kh_jnode_kind kind;
    int op;
    unsigned line;
    const void *found; /* FILTER, TEST: its entry, NULL when there is none of that name */
    const kh_jnode *a, *b, *c, *d, *e;
    const kh_jnode *next; /* in a list */
    kh_jval value;
};

/* ---- the parser ---- */

/* What a macro takes beyond its parameters: what its body asks for. */
enum { KH_J_TAKES_REST = 1, KH_J_TAKES_NAMED = 2, KH_J_TAKES_CALLER = 4 };

typedef struct kh_jparser {
    kh_jrun *run; /* its memory holds the tree */
    const kh_jtoken *at;
    int takes; /* what the macro at hand names: KH_J_TAKES_... */
    unsigned loops;
} kh_jparser;

/* A list of nodes that grows at its end. */
typedef struct kh_jnodes {
    kh_jnode *first, *last;
} kh_jnodes;
void kh_jnodes_add(kh_jnodes *list, kh_jnode *node);

kh_status kh_jparser_node(kh_jparser *p, kh_jnode **out, kh_jnode_kind kind);
int kh_jparser_sees(const kh_jparser *p, const char *name); /* this name is next */
int kh_jparser_takes(kh_jparser *p, const char *name);
int kh_jparser_sign(const kh_jparser *p, int sign);
int kh_jparser_takes_sign(kh_jparser *p, int sign);
kh_status kh_jparser_expect(kh_jparser *p, int sign);
kh_status kh_jparser_name(kh_jparser *p, kh_jval *out);
/* "line: expected ..., found ..." */
kh_status kh_jparser_fail(kh_jparser *p, const char *expected);

enum { KH_J_NO_CHOICE = 1, KH_J_PARENTHESES = 2 };
kh_status kh_jparser_expression(kh_jparser *p, kh_jnode **out);
/* Expressions with commas between them are a tuple. NO_CHOICE: no `if`. */
kh_status kh_jparser_tuple(kh_jparser *p, kh_jnode **out, int flags);
/* What is assigned to: a name, an attribute of a namespace, or a tuple of these. */
kh_status kh_jparser_target(kh_jparser *p, kh_jnode **out);
/* Filters, the first without its bar when `started`. */
kh_status kh_jparser_filters(kh_jparser *p, kh_jnode **out, kh_jnode *input, int started);
kh_status kh_jparser_unary(kh_jparser *p, kh_jnode **out);

/* The statements of a whole template. */
kh_status kh_jparser_template(kh_jparser *p, const kh_jnode **out);

#endif

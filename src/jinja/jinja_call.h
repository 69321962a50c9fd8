/* jinja/jinja_call.h: what a chat template can call: filters, tests, methods, functions and
 * macros; and the operators. Private to gen/jinja*. */
#ifndef KH_JINJA_JINJA_CALL_H
#define KH_JINJA_JINJA_CALL_H

#include "jinja/jinja_text.h"
#include "jinja/jinja_tree.h"

/* The arguments of a call, in order, the named ones last. */
typedef struct kh_jargs {
    kh_jval *items;
    const kh_jtext **names; /* [count - positional] */
    size_t positional, count;
} kh_jargs;

enum { KH_J_MOST_ARGS = 6 };

typedef struct kh_jcall {
    kh_jrun *run;
    kh_jval self;                /* what stands in front of | or . ; ABSENT for functions */
    kh_jval arg[KH_J_MOST_ARGS]; /* in the order of the parameters, ABSENT where not given */
    const kh_jargs *all;
} kh_jcall;

/* A line of a table. `params`: names separated by blanks, optional ones with a '?' in front;
 * NULL takes anything, left in `all`. */
typedef struct kh_jdef {
    const char *name, *params;
    kh_status (*body)(kh_jcall *call, kh_jval *out);
} kh_jdef;

/* Tables end with a line without a name, lists of tables with NULL. */
extern const kh_jdef kh_jfilters_list[], kh_jfilters_text[], kh_jtests_all[], kh_jmethods_text[],
    kh_jmethods_dict[], kh_jmethods_list[], kh_jmethods_loop[], kh_jfunctions_all[];
extern const kh_jdef *const kh_jfilters[], *const kh_jtests[], *const kh_jfunctions[];
const kh_jdef *kh_jdef_find(const kh_jdef *const *tables, kh_jtext name);
kh_status kh_jdef_call(kh_jrun *run, const kh_jdef *def, kh_jval self, const kh_jargs *args,
                       kh_jval *out);

struct kh_jfunction {
    const kh_jdef *def;
    kh_jval self;
};

struct kh_jmacro {
    const kh_jnode *node; /* DO_MACRO */
    kh_jscope *scope;     /* where it was defined */
};

struct kh_jloop {
    const kh_jlist *items;
    size_t index;
    kh_jval before; /* of changed() */
};

/* Calls a macro, function or method. */
kh_status kh_jrun_call(kh_jrun *run, kh_jval callee, const kh_jargs *args, kh_jval *out);

/* ---- arguments ---- */

/* A text, an integer or a truth out of an argument; `fallback` when it is not given (or None, for
 * numbers). The names are for the sentence. */
kh_status kh_jcall_text(kh_jcall *call, int n, kh_jtext *out);
kh_status kh_jcall_int(kh_jcall *call, int n, int64_t fallback, int64_t *out);
int kh_jcall_truth(const kh_jcall *call, int n, int fallback);
/* self as text (str() of what is none). */
kh_status kh_jcall_self(kh_jcall *call, kh_jtext *out);

/* ---- operators (jinja_ops.c) ---- */

kh_status kh_jval_binary(kh_jrun *run, int sign, kh_jval a, kh_jval b, kh_jval *out);
kh_status kh_jval_negate(kh_jrun *run, kh_jval a, kh_jval *out);
kh_status kh_jval_compare(kh_jrun *run, int sign, kh_jval a, kh_jval b, int *out);
/* a.name and a[key]; what is not there is undefined. */
kh_status kh_jval_attr(kh_jrun *run, kh_jval a, const kh_jtext *name, kh_jval *out);
kh_status kh_jval_item(kh_jrun *run, kh_jval a, kh_jval key, kh_jval *out);
/* a[part[0]:part[1]:part[2]], NONE for what is left out. */
kh_status kh_jval_slice(kh_jrun *run, kh_jval a, const kh_jval part[3], kh_jval *out);
/* "a.b.0" as map(attribute=..., default=...) reads it; `fallback` NONE or ABSENT for no default. */
kh_status kh_jval_path(kh_jrun *run, kh_jval a, kh_jval path, kh_jval fallback, kh_jval *out);

/* ---- formats (jinja_format.c) ---- */

/* Python's format % value, and format.format(...). */
kh_status kh_jtext_percent(kh_jrun *run, kh_jtext format, kh_jval value, kh_jval *out);
kh_status kh_jtext_format(kh_jrun *run, kh_jtext format, const kh_jargs *args, kh_jval *out);

/* ---- sorting (jinja_filters.c) ---- */

typedef struct kh_jkeyed {
    kh_jval key, value;
} kh_jkeyed;
/* Stable, by key. */
kh_status kh_jkeyed_sort(kh_jrun *run, kh_jkeyed *list, size_t n, int reverse);

/* ---- walking the tree (jinja_eval.c, jinja_exec.c) ---- */

kh_status kh_jeval(kh_jrun *run, const kh_jnode *node, kh_jval *out);
kh_status kh_jeval_args(kh_jrun *run, const kh_jnode *list, size_t spare, kh_jargs *out);
kh_status kh_jexec(kh_jrun *run, const kh_jnode *list, kh_jout *out);
kh_status kh_jmacro_call(kh_jrun *run, const kh_jmacro *macro, const kh_jargs *args, kh_jval *out);

typedef struct kh_jvar kh_jvar;
struct kh_jscope {
    kh_jscope *parent;
    kh_jvar *vars;
    kh_jval given; /* the text of the block that a filter stands on */
};
struct kh_jvar {
    kh_jvar *next;
    const kh_jtext *name;
    kh_jval value;
};
kh_status kh_jscope_open(kh_jrun *run);
void kh_jscope_close(kh_jrun *run);
/* Sets a variable of the innermost scope. */
kh_status kh_jscope_set(kh_jrun *run, const kh_jtext *name, kh_jval value);

#endif

/* jinja/jinja_value.h: what a chat template computes with: Python's values, as Jinja2 shows them,
 * and the one memory that they live in. Private to gen/jinja*. */
#ifndef KH_JINJA_JINJA_VALUE_H
#define KH_JINJA_JINJA_VALUE_H

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

/* ---- memory: taken piece by piece, given back all at once ---- */

typedef struct kh_jblock kh_jblock;
typedef struct kh_jmemory {
    kh_jblock *last;
    size_t used, limit; /* bytes; a template that needs more is refused */
} kh_jmemory;

/* 16-byte aligned, cleared; KH_ERR_MEMORY, or KH_ERR_FORMAT past the limit. */
kh_status kh_jmemory_take(kh_jmemory *memory, void *out, size_t count, size_t size);
void kh_jmemory_free(kh_jmemory *memory);

/* ---- values ---- */

/* Text with its origin. `said[i]` is 1 where byte i comes from the conversation (a message, a
 * tool, a document), NULL when none does. Not ended by a zero byte. */
typedef struct kh_jtext {
    const char *data;
    const uint8_t *said; /* [size] or NULL */
    size_t size;
    int markup; /* what `safe` and `e` give: text that is added to it is escaped first */
} kh_jtext;

typedef enum kh_jkind {
    KH_J_ABSENT, /* an argument that was not given; never seen by a template */
    KH_J_UNDEFINED,
    KH_J_NONE,
    KH_J_BOOL,
    KH_J_INT,
    KH_J_FLOAT,
    KH_J_STRING,
    KH_J_LIST,
    KH_J_TUPLE,
    KH_J_RANGE,
    KH_J_VIEW,     /* what keys(), values() and items() give */
    KH_J_ITERATOR, /* what map, select and the like give: read once, always true */
    KH_J_DICT,
    KH_J_NAMESPACE,
    KH_J_FUNCTION, /* of the environment, or a method bound to its value */
    KH_J_MACRO,
    KH_J_LOOP
} kh_jkind;

typedef struct kh_jlist kh_jlist;
typedef struct kh_jdict kh_jdict;
typedef struct kh_jmissing kh_jmissing;
typedef struct kh_jfunction kh_jfunction;
typedef struct kh_jmacro kh_jmacro;
typedef struct kh_jloop kh_jloop;

typedef struct kh_jval {
    kh_jkind kind;
    union {
        int64_t i; /* BOOL, INT */
        double f;
        const kh_jtext *s;
        kh_jlist *list; /* LIST to ITERATOR */
        kh_jdict *dict; /* DICT, NAMESPACE */
        const kh_jmissing *missing;
        const kh_jfunction *function;
        const kh_jmacro *macro;
        kh_jloop *loop;
    };
} kh_jval;

struct kh_jlist {
    kh_jval *items;
    size_t count, room;
    size_t next;      /* of an ITERATOR: the first item not yet read */
    const char *name; /* of a VIEW: "dict_items" */
};

typedef struct kh_jentry {
    kh_jval key, value;
} kh_jentry;
struct kh_jdict {
    kh_jentry *entries; /* in the order of insertion */
    size_t count, room;
    uint32_t *slots; /* [slot_count] index + 1 into entries; NULL while small */
    size_t slot_count;
};

/* Why a value is undefined: Jinja2's sentence is made from it when it is needed. */
struct kh_jmissing {
    const char *hint;     /* the whole sentence, or NULL */
    const kh_jtext *name; /* of the variable, or of the attribute of `object` */
    kh_jval key;          /* not ABSENT: the item, when it is no name */
    kh_jkind object;      /* ABSENT: a variable */
};

/* ---- a rendering ---- */

typedef struct kh_jscope kh_jscope;
enum kh_jjump { KH_J_GO_ON, KH_J_BREAK, KH_J_CONTINUE };

typedef struct kh_jrun {
    kh_jmemory memory;
    kh_jscope *scope;
    uint64_t steps, step_limit;
    unsigned depth, depth_limit, line;
    size_t output_limit;
    enum kh_jjump jump;
    int64_t time; /* what strftime_now shows; 0: the clock */
    int raised;   /* the template itself ended the rendering */
} kh_jrun;

/* Counts work in units of about one node or 16 bytes. */
kh_status kh_jrun_count(kh_jrun *run, size_t work);
/* Around whatever descends: nodes, macros, nested values. */
kh_status kh_jrun_enter(kh_jrun *run);
void kh_jrun_leave(kh_jrun *run);

/* ---- making values ---- */

kh_jval kh_jval_none(void);
kh_jval kh_jval_bool(int truth);
kh_jval kh_jval_int(int64_t i);
kh_jval kh_jval_float(double f);
kh_status kh_jval_text(kh_jrun *run, kh_jval *out, kh_jtext text);
kh_status kh_jval_literal(kh_jrun *run, kh_jval *out, const char *text); /* static text */
kh_status kh_jval_list(kh_jrun *run, kh_jval *out, kh_jkind kind, size_t room);
kh_status kh_jval_dict(kh_jrun *run, kh_jval *out, kh_jkind kind);
/* Undefined, with the sentence (static). */
kh_status kh_jval_missing(kh_jrun *run, kh_jval *out, const char *hint);
/* Undefined: no such attribute or item. */
kh_status kh_jval_no_item(kh_jrun *run, kh_jval *out, kh_jval object, kh_jval key);

kh_jtext kh_jtext_of(const char *text);
kh_jtext kh_jtext_cut(kh_jtext text, size_t start, size_t end);
int kh_jtext_is(kh_jtext text, const char *word);

kh_status kh_jlist_add(kh_jrun *run, kh_jlist *list, kh_jval value);
/* Replaces the value of an equal key. KH_ERR_FORMAT for keys that cannot be hashed. */
kh_status kh_jdict_set(kh_jrun *run, kh_jdict *dict, kh_jval key, kh_jval value);
/* ABSENT when there is none. */
kh_status kh_jdict_find(kh_jrun *run, const kh_jdict *dict, kh_jval key, kh_jval *out);
kh_status kh_jdict_word(kh_jrun *run, const kh_jdict *dict, const char *key, kh_jval *out);

/* ---- asking values ---- */

int kh_jval_is_list(kh_jval value);   /* LIST to ITERATOR */
int kh_jval_is_number(kh_jval value); /* BOOL, INT, FLOAT */
double kh_jval_number(kh_jval value);
int kh_jval_truth(kh_jval value);
/* What Python calls the type, without "object": "dict", "NoneType". */
const char *kh_jval_type(kh_jval value);
kh_status kh_jval_equal(kh_jrun *run, kh_jval a, kh_jval b, int *out);
/* *out < 0, 0, > 0; KH_ERR_FORMAT for values without an order. `sign` is the operator in the
 * sentence. */
kh_status kh_jval_order(kh_jrun *run, kh_jval a, kh_jval b, const char *sign, int *out);
kh_status kh_jval_contains(kh_jrun *run, kh_jval box, kh_jval item, int *out);
/* The items of anything that can be iterated over, as a list whose items must not be changed. */
kh_status kh_jval_iterate(kh_jrun *run, kh_jval value, kh_jlist *out);
/* Fails with the sentence that Jinja2 has for the use of an undefined value. */
kh_status kh_jval_refuse(kh_jrun *run, kh_jval undefined);
/* KH_OK unless the value is undefined. */
kh_status kh_jval_need(kh_jrun *run, kh_jval value);
kh_status kh_jval_length(kh_jrun *run, kh_jval value, int64_t *out);

#endif

/* attn/method.h: what a way of choosing keys is, and the table of all of them.
 *
 * A method looks at a tile of query rows and says which keys each row attends to; the shared scorer
 * (attn/scorer.h) does the rest. A new method is one file, one line in KH_ATTN_METHODS and one
 * paragraph in docs/attention.md; the property tests find it through the table. */
#ifndef KH_ATTN_METHOD_H
#define KH_ATTN_METHOD_H

#include "attn/attn.h"

struct kh_tile;

/* Positions [begin, end). */
typedef struct kh_range {
    uint32_t begin, end;
} kh_range;

enum kh_keys_kind {
    KH_KEYS_RANGES, /* scores are computed by the scorer, values mixed page by page */
    KH_KEYS_INDICES /* scores are known, values are gathered */
};

/* What the rows of a tile attend to, inside the tile's chunk of keys. The memory belongs to the tile. */
typedef struct kh_keys {
    kh_range *ranges;  /* [R][2] RANGES: disjoint, ascending, inside what the row sees */
    float *values;     /* [R][ld] INDICES: scores q.k, neither scaled nor capped */
    uint32_t *indices; /* [R][ld] positions, ascending */
    uint32_t *starts;  /* [R] where a row's list begins in its part of both */
    uint32_t *counts;  /* [R] */
    size_t ld;         /* 16 more than a row may ever hold */
} kh_keys;

enum kh_attn_param {
    KH_PARAM_K = 1 << 0,
    KH_PARAM_RECENT = 1 << 1,
    KH_PARAM_SINKS = 1 << 2,
    KH_PARAM_MIN_P = 1 << 3,
    KH_PARAM_TAIL = 1 << 4
};

struct kh_attn_method {
    const char *name;
    enum kh_keys_kind kind;
    unsigned params;        /* enum kh_attn_param: what may be given */
    unsigned needs;         /* those that must be given */
    const char *everything; /* a setting of it that keeps all keys: must equal full attention */
    /* What the values must satisfy together; NULL: nothing. */
    kh_status (*check)(const kh_attn_setting *setting, const char *text);
    /* Entries that a row of kh_keys needs when it sees at most S keys; NULL for ranges. */
    size_t (*room)(const kh_attn_setting *setting, size_t S);
    /* Fills the tile's keys. Runs inside a parallel region: cannot fail. */
    void (*select)(struct kh_tile *tile);
    /* Row r's candidates, in place, to those that the row keeps; returns how many. NULL for ranges. */
    size_t (*reduce)(const struct kh_tile *tile, size_t r, float *values, uint32_t *indices,
                     size_t n);
};

#define KH_ATTN_METHODS(X) X(full) X(window) X(topk)

#define KH_METHOD(name) extern const kh_attn_method kh_attn_##name;
KH_ATTN_METHODS(KH_METHOD)
#undef KH_METHOD

/* The table, in the order of the list. */
enum {
#define KH_METHOD(name) KH_ATTN_METHOD_##name,
    KH_ATTN_METHODS(KH_METHOD)
#undef KH_METHOD
        KH_ATTN_METHOD_COUNT
};
extern const kh_attn_method *const kh_attn_methods[KH_ATTN_METHOD_COUNT];

#endif

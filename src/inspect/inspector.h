/* inspect/inspector.h: what the answers of inspection share: the text, the edits, reading rows again, and rows of
 * the residual stream as distributions. */
#ifndef KH_INSPECT_INSPECTOR_H
#define KH_INSPECT_INSPECTOR_H

#include "gen/engine.h"
#include "inspect/edits.h"
#include "ops/columns.h"

#include <keyhole/inspect.h>

/* Which reading of the text. */
enum kh_reading { KH_READING_BASE, KH_READING_EDITED };

struct kh_inspector {
    const kh_model *model;
    kh_session *root;    /* reads nothing: what the others are forks of */
    kh_session *read[2]; /* by kh_reading: the part of the text that was read that way */
    kh_session *look;    /* reads single blocks again */
    kh_session *branches[KH_BRANCHES]; /* read on together (branches.c); opened when first needed */
    int alone;                         /* 1: the last branch was `look` by itself */
    int32_t *ids;                      /* [count] */
    size_t count, room, prompt, edited_prompt;
    kh_edits edits; /* the last that were given, under which read[KH_READING_EDITED] was read */
    int edited;     /* 1: they hold; 0: the text is read without */
    atomic_bool stop;
    /* products beside a session's passes */
    kh_run run;
    kh_arena step, *scratch; /* [threads] */
    kh_columns columns;
    float *norms; /* [N][F] of the value vectors; NULL until somebody asks */
};

/* Which reading the text's answers are of: edited if there are edits. */
static inline enum kh_reading kh_inspector_reading(const kh_inspector *i)
{
    return i->edited ? KH_READING_EDITED : KH_READING_BASE;
}

/* The rows that are read together with `position`: whole blocks, of which the last may be short and takes a few rows
 * that would be left over. */
void kh_inspector_block(const kh_inspector *inspector, size_t position, size_t *begin, size_t *end);

typedef struct kh_watch {
    const kh_probe *probe;
    void (*seen)(void *context, size_t position, size_t rows); /* NULL: nobody asks */
    void *context;
    enum kh_reading reading;
    int changes;            /* 1: the probe may write, so what was read under it is not kept */
    const kh_probe *before; /* looks in front of the edits; NULL: nobody */
} kh_watch;

/* Reads the blocks that hold [first, first + count) again. */
kh_status kh_inspector_look(kh_inspector *inspector, size_t first, size_t count,
                            const kh_watch *watch);
/* One row alone, without the rest of its block: for observers that are asked row by row. */
kh_status kh_inspector_look_at(kh_inspector *inspector, size_t position, const kh_watch *watch);

/* The text once more from any position on, with nothing before it read again; what a sweep is made of. Observed in pieces,
 * each with its own `seen`; nothing is kept. The second goes on where the look stands. */
kh_status kh_inspector_replay(kh_inspector *inspector, size_t from, size_t end,
                              const kh_watch *watch);
kh_status kh_inspector_replay_on(kh_inspector *inspector, size_t end, const kh_watch *watch);
/* Logits behind the last row of a replay [V]. */
const float *kh_inspector_replayed(const kh_inspector *inspector);

/* ---- several replays in one pass ---- */

/* Contexts' worth of forked positions that branches need. */
size_t kh_inspector_branch_forks(size_t context);
/* How many replays of `rows` rows one pass takes; 1: each by itself. */
size_t kh_inspector_branch_room(const kh_inspector *inspector, size_t rows);
/* Replays the text to its end `count` times in one pass, each from its own position and under its own watch (`seen` is
 * called once); count is at most the room for the longest. All watches have one reading. */
kh_status kh_inspector_branch(kh_inspector *inspector, const size_t *from, const kh_watch *watches,
                              size_t count);
/* Logits behind the last row of a branch [V]. */
const float *kh_inspector_branched(const kh_inspector *inspector, size_t branch);

/* ---- a backward pass ---- */

/* The derivative of logit(a) - logit(b) (of logit(a) where b is negative) behind the last row, by what every row of the text
 * held at the points of `probe`: it is called as an observer of the pass would be, with derivatives [length][width]
 * in place of rows, from the last layer to the first. One pass over the whole text, there and back, without edits:
 * under these KH_ERR_UNSUPPORTED, as for attention without a gradient. KH_ERR_MEMORY where it would take more
 * than was said. */
kh_status kh_inspector_gradient(kh_inspector *inspector, int32_t a, int32_t b,
                                const kh_probe *probe);
/* The most bytes that it takes. */
uint64_t kh_inspector_gradient_bytes(const kh_inspector *inspector);

/* The observer that a session has while it reads: edits, then whoever looks. */
typedef struct kh_chain {
    kh_inspector *inspector;
    const kh_session *session;
    kh_edits *edits;        /* NULL: none */
    const kh_probe *before; /* in front of them; NULL: nobody */
    const kh_probe *probe;  /* NULL: nobody */
} kh_chain;
kh_probe kh_inspector_chain(kh_chain *out, kh_inspector *inspector, const kh_session *session,
                            const kh_watch *watch);
/* `session` has read what `reading` has of [0, length), and nothing else; it reads that far where it has not. */
kh_status kh_inspector_follow(kh_inspector *inspector, kh_session *session, enum kh_reading reading,
                              size_t length);

/* KH_ERR_STOPPED when somebody asked for it. */
kh_status kh_inspector_go_on(const kh_inspector *inspector);
/* KH_ERR_ARGUMENT unless the text has that position. */
kh_status kh_inspector_check_position(const kh_inspector *inspector, size_t position);
kh_status kh_inspector_check_token(const kh_inspector *inspector, int32_t id);

/* Reads positions from the cache: the value of `position` for key head g of a layer, as attention read it. `reading`
 * must have read it. */
void kh_inspector_value(const kh_inspector *inspector, enum kh_reading reading, int layer, int g,
                        size_t position, float *out /* [E] */);
/* All that is needed of [0, position] has been read. */
kh_status kh_inspector_ensure(kh_inspector *inspector, enum kh_reading reading, size_t position);

/* Norms of the value vectors of a layer [F], found when first asked for. */
kh_status kh_inspector_norms(kh_inspector *inspector, int layer, const float **norms);

#endif

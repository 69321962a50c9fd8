/* run/tape.h: what the forward pass leaves for a backward one. NULL in kh_run: nothing, at the cost of one
 * comparison an op.
 *
 * The pass is a program over a few buffers (the residual stream, q, k, v ...), which its ops read, write and
 * write over. Each buffer has a twin: an array of the same size that holds the derivative of the loss by what
 * the buffer holds. An op that runs pushes a record with copies of what its derivative needs; the backward
 * pass takes the records from the last to the first, and each turns twins of what its op wrote into twins of
 * what it read:
 *
 *     y = W x         x' += W^T y'; W' += y' x^T; y' = 0      what y held before is dead
 *     y += x          x' += y'
 *     y = f(y)        y' = f'(kept y) y'
 *
 * Between two records a twin is zero unless something later in the pass reads what its buffer holds at that
 * point. So any buffer may be used again by any op, in place or not, and there is one forward pass. */
#ifndef KH_RUN_TAPE_H
#define KH_RUN_TAPE_H

#include "base/arena.h"

#include <keyhole/status.h>
#include <stddef.h>

struct kh_run;

/* The first member of every op's record; the memory belongs to the tape. */
typedef struct kh_tape_record {
    struct kh_tape_record *before;
    kh_status (*back)(struct kh_run *run, struct kh_tape_record *record);
} kh_tape_record;

typedef struct kh_tape_twin {
    const float *of; /* [n] a buffer of the pass */
    float *gradient; /* [n] */
    size_t n;
} kh_tape_twin;

/* What a replay finds again instead of choosing anew: the kept keys of an attention. */
typedef struct kh_tape_choice {
    struct kh_tape_choice *next;
    void *what;
} kh_tape_choice;

enum { KH_TAPE_TWINS = 48 };

typedef struct kh_tape {
    kh_arena kept; /* records and copies; address space that is paid for when touched */
    kh_tape_record *last;
    kh_tape_twin twins[KH_TAPE_TWINS];
    size_t twin_count;
    /* Where the gradient of a weight is summed; NULL: it is not trained. */
    float *(*gradient_of)(void *context, const float *weight);
    void *context;
    int recompute;    /* 1: blocks are segments; this and the next are set by the owner */
    int layer_causal; /* 1: every block has a loss of its own, whose gradient ends at its input */
    int silent;       /* above 0: ops leave no records (a segment's first run) */
    kh_tape_choice *first, **choose; /* of the segment: left by its first run, read by the replay */
    int replaying;                   /* 1: choices are read */
    struct {
        const void *data, *copy;
        size_t bytes;
        kh_tape_record *after; /* the record that kept it */
    } same;                    /* the last result */
    size_t lost;               /* bytes of the record that found no room; 0: none did */
} kh_tape;

/* `most`: bytes of records; 0: what the machine has. */
kh_status kh_tape_open(kh_tape *tape, size_t most);
void kh_tape_close(kh_tape *tape);
/* Forgets records and twins: before every pass. */
void kh_tape_reset(kh_tape *tape);

/* Gives a buffer [n] of the pass its twin, of zeros, from the same arena. */
kh_status kh_tape_buffer(kh_tape *tape, kh_arena *arena, const float *buffer, size_t n);

/* ---- for ops ---- */

/* 1 where the op has to push a record. */
int kh_tape_wants(const struct kh_run *run);
/* A record of `size` bytes, cleared but for its head; NULL where memory is short, which ends the pass at its
 * end (kh_tape_backward) and not before, so that ops which cannot fail need not. */
void *kh_tape_push(struct kh_run *run, kh_status (*back)(struct kh_run *, kh_tape_record *),
                   size_t size);
/* A copy that lives as long as the record, the last one pushed; NULL as above. What the record before it kept as its
 * result, or what a segment began with, is not copied again: nothing was written between. */
const void *kh_tape_keep(struct kh_run *run, const void *data, size_t bytes);
/* The same for what the record's op has written. */
const void *kh_tape_keep_result(struct kh_run *run, const void *data, size_t bytes);
/* The same where nothing writes to it before the record is taken back (inside a replay): it stays where it is. */
const void *kh_tape_lend_result(struct kh_run *run, const void *data, size_t bytes);
/* The twin at `at`, which points into a buffer of the pass. NULL for memory that has no twin, whose
 * derivative nobody wants. */
float *kh_tape_twin_of(const struct kh_run *run, const float *at);
/* A twin becomes 0: what its buffer holds was written over. Of a long one the pages go back to the system. */
void kh_tape_clear(struct kh_run *run, float *twin, size_t n);
/* The gradient of a weight, bias or gain, to be added to; NULL: it is not trained. */
float *kh_tape_gradient_of(const struct kh_run *run, const float *weight);

/* 1 where the op runs in a replay, which is taken back before anything else runs. */
int kh_tape_replays(const struct kh_run *run);

/* ---- for the pass ---- */

typedef kh_tape_record *kh_tape_mark;
kh_tape_mark kh_tape_save(const kh_tape *tape);
/* Takes back the records behind the mark, and their memory. KH_ERR_MEMORY when one was lost. */
kh_status kh_tape_backward(struct kh_run *run, kh_tape_mark mark);

/* A part of the pass whose records are not kept: `body` runs now without records, and once more, with them,
 * in the backward pass, where `state` [n] (all that it reads of what ran before) is what it was. Choices that
 * ops left in the first run are found again. Segments may stand inside segments. */
typedef struct kh_tape_body {
    kh_status (*run)(struct kh_run *run, const void *context);
    const void *context; /* [bytes], copied */
    size_t bytes;
    float *state; /* [n] */
    size_t n;
    int unread; /* 1: nothing behind it in the segment that it stands in reads what it writes, so that a replay of
                   that segment leaves it out */
} kh_tape_body;
kh_status kh_tape_segment(struct kh_run *run, const kh_tape_body *body);
/* For an op inside a segment: leaves `what` (of the tape's memory: kh_tape_take) for the replay; and finds it
 * there, in the same order. */
void *kh_tape_take(struct kh_run *run, size_t bytes);
void kh_tape_leave(struct kh_run *run, void *what);
void *kh_tape_find(struct kh_run *run);

#endif

/* tasks/task_impl.h: what a kind of task is, and the random numbers that its examples are made of. */
#ifndef KH_TASKS_TASK_IMPL_H
#define KH_TASKS_TASK_IMPL_H

#include "base/buf.h"
#include "base/rng.h"

#include <keyhole/task.h>

enum { KH_TASK_MOST_PARAMS = 8 };

/* ---- drawing ---- */

/* The cells of one example's stream, in order. */
typedef struct kh_task_draws {
    kh_rng_key key;
    uint64_t next;
} kh_task_draws;
/* The stream of an example. */
kh_task_draws kh_task_stream(const char *name, uint64_t seed, kh_task_split split, uint64_t index);
/* Uniform in 0 .. n - 1, without bias; n from 1. */
uint64_t kh_task_below(kh_task_draws *draws, uint64_t n);
/* Uniform in [0, 1). */
double kh_task_unit(kh_task_draws *draws);

/* ---- kinds ---- */

/* A parameter: a number in [least, most], or a text. */
typedef struct kh_task_param {
    const char *name;
    const char *initial; /* NULL: has to be given */
    enum { KH_TASK_WHOLE, KH_TASK_REAL, KH_TASK_TEXT } kind;
    double least, most;
} kh_task_param;

/* A predictor that counts: for every answer it sees a cell of its table, in which it counted on the
 * training split which vote would have been right; it answers with the commonest. */
typedef struct kh_task_shallow {
    const char *name;
    void (*shape)(const kh_task *task, size_t *cells, size_t *votes);
    /* The answer at `row` (0 for a label): what the predictor sees, and which vote is right. */
    void (*see)(const kh_task *task, const kh_task_example *example, size_t row, size_t *cell,
                size_t *vote);
} kh_task_shallow;

typedef struct kh_task_family {
    kh_task_kind kind;
    const kh_task_param *params; /* ends with a NULL name */
    /* Checks the values against each other and fills info, own and scratch_size. */
    kh_status (*open)(kh_task *task);
    void (*close)(kh_task *task); /* NULL: kh_free(own) does */
    /* Fills tokens, n, and label or targets; all targets are -1, second is 0, drafts and fits 1 before. */
    kh_status (*make)(const kh_task *task, kh_task_split split, kh_task_draws *draws,
                      kh_task_example *out);
    /* As kh_task_spell; NULL: in decimals. */
    int (*spell)(const kh_task *task, int32_t id, char *out, size_t room);
    /* Appends the written form; NULL: spelled ids with blanks between. */
    kh_status (*text)(const kh_task *task, const kh_task_example *example, kh_buf *out);
    const char *const *numbers; /* names behind which NULL stands; NULL: none */
    /* Adds to [numbers] sums what one example has; kh_task_measure divides by the examples. */
    void (*measure)(const kh_task *task, const kh_task_example *example, double *sums);
    const kh_task_shallow *shallow; /* ends with a NULL name */
} kh_task_family;

extern const kh_task_family kh_task_listops, kh_task_mqar, kh_task_pathfinder, kh_task_bytes,
    kh_task_copy, kh_task_induction;

struct kh_task {
    const kh_task_family *family;
    kh_task_info info;
    double value[KH_TASK_MOST_PARAMS];     /* [params] in the order of the family's table */
    const char *text[KH_TASK_MOST_PARAMS]; /* [params] of text parameters; parts of `work` */
    char *work;                            /* the copy of the setting that parsing cut up */
    kh_buf setting;                        /* the whole line */
    size_t scratch_size;                   /* bytes of an example's scratch; may be 0 */
    void *own;                             /* the family's; given to kh_free */
};

/* ---- shared by families ---- */

/* "task 'SETTING': ..." with KH_ERR_ARGUMENT. */
#define KH_TASK_REFUSE(task, format, ...)                                                          \
    KH_FAIL(KH_ERR_ARGUMENT, "task '%s': " format, (task)->setting.data, __VA_ARGS__)

static inline size_t kh_task_count_of(const kh_task *task, int param)
{
    return (size_t)task->value[param];
}

/* Predictors without a look: the commonest label, the commonest id. */
void kh_task_majority_shape(const kh_task *task, size_t *cells, size_t *votes);
void kh_task_majority_see(const kh_task *task, const kh_task_example *example, size_t row,
                          size_t *cell, size_t *vote);

/* Of the Pathfinder example that was made last with this memory: [target][start, end][y, x], and which target's
 * start and which target's end are marked. */
void kh_task_pathfinder_tips(const kh_task_example *example, int ends[2][2][2], int marked[2]);

#endif

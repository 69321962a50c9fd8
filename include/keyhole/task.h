/* keyhole/task.h: generated tasks whose answers are known, to train on and to measure with.
 *
 * A task is opened by a line of text, NAME[:name=value,...], as "mqar:L=64,pairs=4". Example number i
 * of a split is a pure function of (task, seed, split, i): there is no state, so a data set has
 * neither a file nor an end, and any order, any worker and any resumed run sees the same examples.
 * They are the same on every machine too. docs/tasks.md has the tasks and what is known of them. */
#ifndef KEYHOLE_TASK_H
#define KEYHOLE_TASK_H

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kh_task kh_task;

typedef enum kh_task_split { KH_TASK_TRAIN, KH_TASK_VALID, KH_TASK_TEST } kh_task_split;

/* The kinds of tasks there are, by index from 0. */
typedef struct kh_task_kind {
    const char *name;    /* "mqar" */
    const char *about;   /* half a sentence */
    const char *setting; /* every parameter with its default, "" where there is none */
} kh_task_kind;
KH_API size_t kh_task_kind_count(void);
KH_API const kh_task_kind *kh_task_kind_at(size_t index); /* NULL behind the last */

/* Opens a task. *out NULL on failure: an unknown name or parameter, a value outside its range, values
 * that contradict each other (KH_ERR_ARGUMENT), files that cannot be read. A task does not change
 * while it is open: several threads may use it, each with an example of its own. */
KH_API kh_status kh_task_open(kh_task **out, const char *setting);
KH_API void kh_task_close(kh_task *task); /* takes NULL */

typedef struct kh_task_info {
    const char *name;    /* "mqar" */
    const char *setting; /* the whole line: every parameter with its value */
    int vocabulary;      /* ids are 0 .. vocabulary - 1 */
    int classes;         /* one label per example; 0: answers are ids at rows (`targets`) */
    int pad;             /* the id that fills up shorter examples; -1: all are equally long */
    int pair;            /* 1: an example is two texts, see kh_task_example.second */
    size_t longest;      /* tokens of the longest example */
} kh_task_info;
KH_API const kh_task_info *kh_task_get_info(const kh_task *task); /* lives as long as the task */

/* One example, and the memory for the next one: opened once, filled again and again. */
typedef struct kh_task_example {
    int32_t *tokens;  /* [n] */
    int32_t *targets; /* [n] the id that row t has to predict, or -1 */
    size_t n;
    int label;     /* the class, or -1 */
    size_t second; /* of two texts: the row where the second begins; 0: one text */
    size_t drafts; /* that were drawn until one was accepted; 1 where nothing is rejected */
    size_t fits;   /* of these: that are allowed, the accepted one and those of other splits */
    void *scratch; /* the generator's */
} kh_task_example;
/* Memory for the task's longest example; all pointers NULL on failure. */
KH_API kh_status kh_task_example_open(kh_task_example *out, const kh_task *task);
KH_API void kh_task_example_close(kh_task_example *example); /* a zeroed one too */

/* Fills `out`, which was opened for this task. Allocates nothing. KH_ERR_CHECK when a generator that
 * rejects drafts found none that fits. */
KH_API kh_status kh_task_generate(const kh_task *task, uint64_t seed, kh_task_split split,
                                  uint64_t index, kh_task_example *out);

/* How an id is written: at most room - 1 bytes and a zero byte; returns the whole length. */
KH_API size_t kh_task_spell(const kh_task *task, int32_t id, char *out, size_t room);
/* The written form of an example: ids with blanks between, or what the task's literature writes.
 * Free with kh_free_text. */
KH_API kh_status kh_task_text(const kh_task *task, const kh_task_example *example, char **out,
                              size_t *size);

/* A number with a name; names are constants. */
typedef struct kh_task_number {
    const char *name;
    double value;
} kh_task_number;
enum { KH_TASK_MOST_NUMBERS = 8, KH_TASK_MOST_CLASSES = 16 };

/* What can be counted on examples 0 .. count - 1 of a split. */
typedef struct kh_task_stats {
    size_t examples;
    size_t duplicates; /* examples that are equal to an earlier one */
    size_t shortest, longest;
    double mean_length;
    double answers;    /* rows with a target, or labels, per example */
    double acceptance; /* the share of drafts that are allowed; 1 where nothing is rejected */
    int classes;
    double share[KH_TASK_MOST_CLASSES];           /* [classes] of each label */
    kh_task_number numbers[KH_TASK_MOST_NUMBERS]; /* [count] what this task has beyond that */
    size_t count;
} kh_task_stats;
KH_API kh_status kh_task_measure(const kh_task *task, uint64_t seed, kh_task_split split,
                                 size_t count, kh_task_stats *out);

/* What predictors reach that do not solve the task, such as the commonest label: accuracies on `tested`
 * examples of the test split, after counting on `fitted` of the training split. To be printed beside every
 * score. Accuracy is the mean over examples of the share of right answers. */
KH_API kh_status kh_task_baselines(const kh_task *task, uint64_t seed, size_t fitted, size_t tested,
                                   kh_task_number *out /* [KH_TASK_MOST_NUMBERS] */, size_t *count);

#ifdef __cplusplus
}
#endif
#endif

/* keyhole/train.h: training: gradients of any model that the forward pass runs, and the loop around them.
 *
 *     kh_trainer_open      masters in F32 of a model's weights, or of a model from nothing
 *     kh_trainer_gradient  a batch of your own, forward and back: gradients are added up
 *     kh_trainer_update    the optimiser
 *     kh_trainer_step      both, from the training data: one step of a run
 *     kh_trainer_save      the model, as GGUF or as a Hugging Face folder
 *
 * The same options and the same data give the same bits, for any number of threads, and for a run that was
 * interrupted and resumed. */
#ifndef KEYHOLE_TRAIN_H
#define KEYHOLE_TRAIN_H

#include <keyhole/model.h>
#include <keyhole/shard.h>
#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kh_trainer kh_trainer;

typedef struct kh_train_options {
    /* The model: one of these two. */
    const kh_model
        *model; /* starts from its weights; must outlive the trainer, for its tokenizer */
    /* Of `arch`: a model, or a folder with a tokenizer; NULL: a task needs none. */
    const char *tokenizer;
    const char
        *arch; /* starts from nothing: "llama:layers=4,width=128,heads=4,..."; docs/training.md */
    /* The data: files and folders, or one task; neither: batches come from the caller. */
    const char *const *paths; /* [path_count] text, .jsonl, .khtok */
    size_t path_count;
    const char *const *valid_paths; /* [valid_path_count]; none: a share of the data is held out */
    size_t valid_path_count;
    const char *task;     /* "mqar:L=64,pairs=4"; docs/tasks.md */
    double valid;         /* the share; 0: nothing is held out */
    size_t length, batch; /* L and B of a batch; 0: the trained context up to 1024, and 1 */
    int accumulate;       /* batches whose gradients make one step; 0: 1 */
    int pack; /* 1: one document a row and no other; 0: rows are filled with documents */
    kh_document_options documents; /* of the files */
    int in_order; /* 1: documents in their own order; 0: shuffled anew in every epoch */
    /* The pass. */
    const char *attn; /* NULL: full. A number may move: "topk:k=16..128/1000" */
    const char *ff;   /* NULL: dense */
    int keep_records; /* 1: a block's records are kept; 0: it runs again before its backward pass */
    int layer_causal; /* 1: a loss for every layer, whose gradient ends at the layer's input */
    /* Losses against a teacher, "kl=1,temperature=2,map=0.1,relation=0.1" (docs/training.md); NULL: none. The teacher is
     * a file or a folder; NULL: the model itself with full attention. */
    const char *distill, *teacher;
    double attn_dropout;
    int threads; /* 0: all processors that the process may use */
    /* The optimiser; docs/training.md. */
    const char *optimizer; /* NULL: "adamw" */
    const char *schedule;  /* NULL: "cosine" */
    double
        rate; /* learning rate, the highest of the schedule; 0: 1e-3, of a model 2e-5, of an adapter 2e-4 */
    uint64_t steps; /* of the whole run, for the schedule; 0: 1000 */
    /* An adapter instead of the weights, which stay in the file's types: its rank (0: none), alpha (0: twice the
     * rank), and patterns of the tensors that get one (NULL: queries and values of attention). Or one that is
     * there, with its own: what kh_model_add_lora takes (NULL: none). */
    size_t lora_rank;
    double lora_alpha;
    const char *lora_targets;
    const char *lora_from;
    const char *train; /* NULL: all tensors; "PATTERN,...": these and no others */
    const char *const
        *groups; /* [group_count] "blk.*.attn_q.weight:rate=0.1" ...; later ones win */
    size_t group_count;
    uint64_t seed;
    /* The run's folder: checkpoints; NULL: none are kept. */
    const char *folder;
    int keep; /* checkpoints; 0: 2 */
    int resume; /* 1: goes on from the newest checkpoint, where there is one; 0: a folder with checkpoints is
                   KH_ERR_STATE */
} kh_train_options;

/* Everything is checked here, in one sentence each; what a step needs is taken here. Texts of the options may go
 * afterwards. */
KH_API kh_status kh_trainer_open(kh_trainer **out, const kh_train_options *options);
KH_API void kh_trainer_close(kh_trainer *trainer); /* takes NULL */

/* ---- a run ---- */

typedef struct kh_train_report {
    uint64_t step;     /* steps done */
    double loss;       /* mean over the rows with a target, of the step's batches */
    double distill;    /* mean of the weighted losses against a teacher, beside `loss`; 0: none */
    double accuracy;   /* share of these rows (or documents) that are predicted right */
    double rate, norm; /* learning rate; the gradient's norm before clipping */
    uint64_t rows;     /* of the step, that have a target */
    uint64_t tokens;   /* of the step, all */
    uint64_t epoch;
    double seconds;
    uint64_t peak_bytes; /* of the process */
} kh_train_report;

/* One step on the next batches. KH_ERR_CHECK when loss or gradient are not finite: the sentence names step and
 * tensor and nothing was changed; KH_ERR_STOPPED after kh_trainer_stop: nothing was changed. */
KH_API kh_status kh_trainer_step(kh_trainer *trainer, kh_train_report *report);
/* The held out data, at most `batches` batches of it (0: all); loss, accuracy, rows and seconds. KH_ERR_STATE when
 * nothing is held out. */
KH_API kh_status kh_trainer_evaluate(kh_trainer *trainer, size_t batches, kh_train_report *report);
/* Writes the state of the run as the newest checkpoint of the folder. */
KH_API kh_status kh_trainer_checkpoint(kh_trainer *trainer);
/* Ends the step (or evaluation) that runs, or the next one where none does; from any thread or signal handler. */
KH_API void kh_trainer_stop(kh_trainer *trainer);
/* Writes the model: GGUF, or a folder where `path` ends in '/'. `type` NULL: BF16. Of an adapter the same two: as
 * llama.cpp has it, or as PEFT; F32. */
KH_API kh_status kh_trainer_save(kh_trainer *trainer, const char *path, const char *type);

typedef struct kh_train_info {
    uint64_t step, steps, parameters, trained; /* trained: parameters that are not frozen */
    uint64_t documents;                        /* of the data; 0: none; UINT64_MAX: endless */
    const char *attn, *ff, *architecture,
        *checkpoint;         /* the newest: what the run went on from, or wrote since; "": none */
    const char *passed_over; /* newer ones that are not whole, a line each, and why; "": none */
    size_t weight_bytes, moment_bytes, activation_bytes, record_bytes;
    int threads;
} kh_train_info;
KH_API void kh_trainer_get_info(const kh_trainer *trainer, kh_train_info *out);

/* ---- gradients by hand ---- */

/* Sequences behind one another; each sees itself only. Of a model that reads two texts (an encoder before a decoder, a
 * head for classes of pairs) sequences 2i and 2i + 1 are one example. */
typedef struct kh_train_batch {
    const int32_t *tokens;  /* [rows] */
    const int32_t *targets; /* [rows] that a row has to predict, -1: none; NULL: no row has one */
    const size_t *lengths;  /* [sequences], their sum is rows; NULL: one sequence */
    size_t rows, sequences;
    const int *labels;    /* [examples] of a head for classes, -1: none; NULL: no example has one */
    const int32_t *types; /* [rows] 0 or 1: which text of a pair; NULL: 0 */
} kh_train_batch;

/* Adds `weight` times the gradient of the batch's summed negative log likelihood to all gradients; `nats` receives
 * the sum. weight 0: the loss alone. */
KH_API kh_status kh_trainer_gradient(kh_trainer *trainer, const kh_train_batch *batch,
                                     double weight, double *nats);
/* Moves the weights by the gradients, which become 0. rate 0: that of the schedule. */
KH_API kh_status kh_trainer_update(kh_trainer *trainer, double rate, double *norm);

typedef struct kh_train_tensor {
    const char *name;      /* as in the file */
    float *data;           /* [rows][cols] may be written between calls */
    const float *gradient; /* [rows][cols]; NULL: the tensor is frozen */
    int rows, cols;
} kh_train_tensor;
KH_API size_t kh_trainer_tensor_count(const kh_trainer *trainer);
KH_API void kh_trainer_get_tensor(const kh_trainer *trainer, size_t index, kh_train_tensor *out);

#ifdef __cplusplus
}
#endif
#endif

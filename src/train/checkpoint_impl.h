/* train/checkpoint_impl.h: what writing and reading of checkpoints share. */
#ifndef KH_TRAIN_CHECKPOINT_IMPL_H
#define KH_TRAIN_CHECKPOINT_IMPL_H

#include "train/checkpoint.h"

enum { KH_CHECKPOINT_FILES = 2, KH_CHECKPOINT_STATE = 16 << 20 /* most bytes of state.json */ };

/* "model.safetensors", "optimizer.safetensors" */
extern const char *const kh_checkpoint_files[KH_CHECKPOINT_FILES];

typedef struct kh_checkpoint_file {
    uint64_t size, digest;
} kh_checkpoint_file;

/* Size and digest of a file as the disk has it. */
kh_status kh_checkpoint_measure(kh_checkpoint_file *out, const char *path);

/* state.json as a text. */
kh_status kh_checkpoint_write_state(kh_buf *out, const kh_checkpoint_state *state,
                                    const kh_checkpoint_file files[KH_CHECKPOINT_FILES]);

/* What state.json says, with memory of its own. */
typedef struct kh_checkpoint_record {
    kh_checkpoint_state state; /* blobs point into `blobs` */
    kh_checkpoint_file files[KH_CHECKPOINT_FILES];
    kh_checkpoint_blob *blobs; /* names and data are allocated */
    char library[64];
} kh_checkpoint_record;
kh_status kh_checkpoint_read_state(kh_checkpoint_record *out, const char *path);
void kh_checkpoint_record_free(kh_checkpoint_record *record);

/* Steps of the folders "step-N" in a run's folder, newest first; the caller frees *steps. */
kh_status kh_checkpoint_list(uint64_t **steps, size_t *count, const char *folder);

#endif

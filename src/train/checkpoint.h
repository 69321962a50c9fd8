/* train/checkpoint.h: a run that stops, for whatever reason, goes on from a folder.
 *
 *     RUN/lock                              who writes here
 *     RUN/step-00001200/model.safetensors       masters
 *                       optimizer.safetensors   moments
 *                       state.json              step, random key, best loss, blobs; sizes and digests of the others
 *
 * A checkpoint appears under its name when it is whole and on the disk; a folder that is not whole (no state.json, a
 * size or a digest that disagrees) is no checkpoint. */
#ifndef KH_TRAIN_CHECKPOINT_H
#define KH_TRAIN_CHECKPOINT_H

#include "base/buf.h"
#include "base/rng.h"
#include "train/tensors.h"

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that only their owner understands: the position in the data, a tokenizer's counters. */
typedef struct kh_checkpoint_blob {
    const char *name; /* letters, digits, '-', '_', '.' */
    const void *data;
    size_t
        size; /* all blobs together at most KH_CHECKPOINT_BLOBS bytes: they are written as digits */
} kh_checkpoint_blob;
enum { KH_CHECKPOINT_BLOBS = 4 << 20 };

typedef struct kh_checkpoint_state {
    uint64_t step; /* steps that were done; names the folder */
    kh_rng_key key;
    double best;     /* the best loss so far; NAN: none yet */
    uint64_t config; /* kh_checkpoint_digest of the resolved configuration */
    const kh_checkpoint_blob *blobs;
    size_t blob_count;
} kh_checkpoint_state;

/* 64 bits that change with any 8 bytes that change; not against forgery. */
uint64_t kh_checkpoint_digest(const void *data, size_t size);

/* "FOLDER/step-00001200" into a buffer that is emptied before. */
kh_status kh_checkpoint_name(kh_buf *out, const char *folder, uint64_t step);

/* ---- writing ---- */

typedef struct kh_checkpoints kh_checkpoints;

/* Takes a run's folder for writing (it is made; the one above it must be there) and keeps it locked until it is closed
 * or the process ends: KH_ERR_STATE while another process has it. What a killed run left half done is removed.
 * `keep`: how many complete checkpoints stay after each save, the newest ones; 0: all. */
kh_status kh_checkpoints_open(kh_checkpoints **out, const char *folder, size_t keep);
void kh_checkpoints_close(kh_checkpoints *run);

/* Writes a checkpoint, waits until it is on the disk, lets it appear, and then removes what is too old. One of the
 * same step is replaced. On failure everything is as it was before. */
kh_status kh_checkpoints_save(kh_checkpoints *run, const kh_checkpoint_state *state,
                              const kh_tensor_view *model, size_t model_count,
                              const kh_tensor_view *optimizer, size_t optimizer_count);

/* ---- reading ---- */

typedef struct kh_checkpoint kh_checkpoint;

/* Opens one ("RUN/step-00001200") after checking all of it; KH_ERR_FORMAT says what is wrong with it. */
kh_status kh_checkpoint_open(kh_checkpoint **out, const char *path);
/* Opens the newest complete one of a run's folder. For each newer one that is not complete, `ignored` (NULL: nobody
 * asks) gets a line that names it and says why. KH_ERR_NOT_FOUND where the folder has none at all, KH_ERR_FORMAT
 * where none of them is complete. */
kh_status kh_checkpoint_newest(kh_checkpoint **out, const char *folder, kh_buf *ignored);
void kh_checkpoint_close(kh_checkpoint *checkpoint);

/* All valid until it is closed. */
const char *kh_checkpoint_path(const kh_checkpoint *checkpoint);
const char *kh_checkpoint_library(const kh_checkpoint *checkpoint); /* version that wrote it */
const kh_checkpoint_state *kh_checkpoint_get_state(const kh_checkpoint *checkpoint);
/* A blob by name, or NULL. */
const kh_checkpoint_blob *kh_checkpoint_get_blob(const kh_checkpoint *checkpoint, const char *name);

/* Fills the arrays of all views. KH_ERR_ARGUMENT, before anything is filled, where names, types or shapes are not
 * exactly those of the checkpoint. */
kh_status kh_checkpoint_read_model(const kh_checkpoint *checkpoint, const kh_tensor_view *to,
                                   size_t count);
kh_status kh_checkpoint_read_optimizer(const kh_checkpoint *checkpoint, const kh_tensor_view *to,
                                       size_t count);

#endif

/* format/safetensors.h: reads safetensors files, single or sharded, over mappings, and writes them;
 * never trusts a length. */
#ifndef KH_FORMAT_SAFETENSORS_H
#define KH_FORMAT_SAFETENSORS_H

#include "format/gguf.h"
#include "tensor/types.h"

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

/* name, bytes of an element. All are laid out and checked; kh_st_kernel_type says which of them can
 * be computed with. */
#define KH_ST_LIST(X)                                                                              \
    X(F32, 4)                                                                                      \
    X(F16, 2)                                                                                      \
    X(BF16, 2)                                                                                     \
    X(I64, 8)                                                                                      \
    X(I32, 4)                                                                                      \
    X(U8, 1)                                                                                       \
    X(F64, 8)                                                                                      \
    X(U64, 8)                                                                                      \
    X(U32, 4)                                                                                      \
    X(I16, 2)                                                                                      \
    X(U16, 2)                                                                                      \
    X(I8, 1)                                                                                       \
    X(BOOL, 1)                                                                                     \
    X(F8_E4M3, 1)                                                                                  \
    X(F8_E5M2, 1)

typedef enum kh_st_type {
#define KH_ST_ENUM(name, bytes) KH_ST_##name,
    KH_ST_LIST(KH_ST_ENUM)
#undef KH_ST_ENUM
        KH_ST_TYPES
} kh_st_type;

enum { KH_ST_DIMS = 8 };

typedef struct kh_st_tensor {
    const char *name; /* owned by the file; ends with a zero byte */
    kh_st_type type;
    int n_dims;                /* 0: a single number */
    uint64_t dims[KH_ST_DIMS]; /* slowest first, as in the file; none beyond n_dims */
    const void *data;          /* inside the mapping; may be unaligned */
    size_t size;               /* bytes */
    size_t part;               /* which file of a sharded model */
} kh_st_tensor;

typedef struct kh_safetensors kh_safetensors;

/* Opens "NAME.safetensors", or with "NAME.safetensors.index.json" all shards that it names, which lie
 * beside it. Every tensor's type, shape and place have been checked when this returns: inside its
 * file, apart from all others, without gaps; no name twice. */
kh_status kh_safetensors_open(kh_safetensors **out, const char *path);
/* The same over memory that the caller keeps alive (tests, fuzzing). */
kh_status kh_safetensors_open_memory(kh_safetensors **out, const void *data, size_t size,
                                     const char *name);
void kh_safetensors_close(kh_safetensors *file);

size_t kh_safetensors_count(const kh_safetensors *file);
const kh_st_tensor *kh_safetensors_at(const kh_safetensors *file, size_t index);
const kh_st_tensor *kh_safetensors_find(const kh_safetensors *file, const char *name);
uint64_t kh_safetensors_size(const kh_safetensors *file); /* bytes of all parts */
/* The path of the file that holds a tensor, for sentences. */
const char *kh_safetensors_part(const kh_safetensors *file, const kh_st_tensor *tensor);
/* Gives the resident pages of a tensor back. */
void kh_safetensors_release(const kh_safetensors *file, const kh_st_tensor *tensor);
/* Hands the mappings to a composed file, which then closes them; the tensors' data stay valid as long
 * as it is open, this object may be closed. */
kh_status kh_safetensors_give_maps(kh_safetensors *file, kh_gguf *to);

const char *kh_st_type_name(kh_st_type type); /* "BF16" */
size_t kh_st_type_bytes(kh_st_type type);
/* F32, F16 and BF16 as what they are in GGUF, others KH_TYPE_NONE; and back (KH_ST_TYPES: none). */
kh_type kh_st_kernel_type(kh_st_type type);
kh_st_type kh_st_type_of(kh_type type);

/* A file that is being written: the header first, then the bytes of all tensors in order, in any
 * pieces. Takes name, type, n_dims and dims of `tensors`; sorts them (stably, wide elements first, so
 * that all are aligned) and sets their size: their bytes are expected in the order that it leaves. */
typedef struct kh_st_writer kh_st_writer;
kh_status kh_st_writer_open(kh_st_writer **out, const char *path, kh_st_tensor *tensors,
                            size_t count);
kh_status kh_st_writer_put(kh_st_writer *writer, const void *bytes, size_t size);
/* Publishes the file; KH_ERR_STATE when bytes are missing. Frees the writer in any case. */
kh_status kh_st_writer_commit(kh_st_writer *writer);
void kh_st_writer_abandon(kh_st_writer *writer); /* takes NULL */

#endif

/* format/gguf.h: reads GGUF v2/v3 files, whole or split, over a mapping; never trusts a length. */
#ifndef KH_FORMAT_GGUF_H
#define KH_FORMAT_GGUF_H

#include "tensor/types.h"

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

typedef enum kh_gguf_kind {
    KH_GGUF_U8 = 0,
    KH_GGUF_I8,
    KH_GGUF_U16,
    KH_GGUF_I16,
    KH_GGUF_U32,
    KH_GGUF_I32,
    KH_GGUF_F32,
    KH_GGUF_BOOL,
    KH_GGUF_STRING,
    KH_GGUF_ARRAY,
    KH_GGUF_U64,
    KH_GGUF_I64,
    KH_GGUF_F64
} kh_gguf_kind;

/* Text inside the mapping: not followed by a zero byte. */
typedef struct kh_slice {
    const char *data;
    size_t size;
} kh_slice;

typedef struct kh_gguf_value {
    kh_slice key;
    kh_gguf_kind kind;    /* KH_GGUF_ARRAY for arrays */
    kh_gguf_kind element; /* element kind of an array */
    uint64_t count;       /* elements of an array, 1 otherwise */
    const uint8_t *data;  /* the first element, unaligned, inside the mapping */
    kh_slice *strings;    /* [count] for STRING and arrays of strings, parsed once */
} kh_gguf_value;

typedef struct kh_gguf kh_gguf;

/* Opens a file; of a split model ("-00001-of-00003.gguf") any part, and the others beside it. Every
 * tensor's type, shape, offset and size have been checked against its part when this returns. */
kh_status kh_gguf_open(kh_gguf **out, const char *path);
/* The same over memory that the caller keeps alive (tests, fuzzing). */
kh_status kh_gguf_open_memory(kh_gguf **out, const void *data, size_t size, const char *name);
void kh_gguf_close(kh_gguf *file);

const char *kh_gguf_path(const kh_gguf *file);
uint32_t kh_gguf_version(const kh_gguf *file);
uint64_t kh_gguf_size(const kh_gguf *file); /* bytes of all parts */

size_t kh_gguf_value_count(const kh_gguf *file);
const kh_gguf_value *kh_gguf_value_at(const kh_gguf *file, size_t index);
const kh_gguf_value *kh_gguf_find(const kh_gguf *file, const char *key); /* NULL if absent */

/* Scalars. A missing key leaves *out alone and is KH_OK for the `opt` forms, KH_ERR_FORMAT with a
 * sentence otherwise; a value of another kind or outside the range is KH_ERR_FORMAT for both. Any
 * integer width is accepted for integers, F32 and F64 (and integers) for reals. */
kh_status kh_gguf_u64(const kh_gguf *file, const char *key, uint64_t *out, uint64_t max);
kh_status kh_gguf_opt_u64(const kh_gguf *file, const char *key, uint64_t *out, uint64_t max);
kh_status kh_gguf_opt_f64(const kh_gguf *file, const char *key, double *out);
kh_status kh_gguf_opt_bool(const kh_gguf *file, const char *key, int *out);
kh_status kh_gguf_opt_string(const kh_gguf *file, const char *key, kh_slice *out);
/* Element `index` of an array of integers or booleans (or of a scalar: every index is the scalar). */
kh_status kh_gguf_element_u64(const kh_gguf_value *value, uint64_t index, uint64_t *out);
kh_status kh_gguf_element_f64(const kh_gguf_value *value, uint64_t index, double *out);

size_t kh_gguf_tensor_count(const kh_gguf *file);
const kh_tensor *kh_gguf_tensor_at(const kh_gguf *file, size_t index);
const kh_tensor *kh_gguf_tensor(const kh_gguf *file, const char *name); /* NULL if absent */
/* Gives the resident pages of a tensor back (they are read again from the file when needed). */
void kh_gguf_release(const kh_gguf *file, const kh_tensor *tensor);
/* A 64-bit identity of the file's content that is cheap to compute: header, sizes and samples of the
 * data; 16 hexadecimal digits and a zero byte. The key of everything that is stored per file. */
void kh_gguf_identity(const kh_gguf *file, char out[17]);

#endif

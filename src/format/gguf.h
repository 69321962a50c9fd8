/* format/gguf.h: GGUF models: read from v2/v3 files, whole or split, over a mapping, never trusting a
 * length; or composed in memory; and written. */
#ifndef KH_FORMAT_GGUF_H
#define KH_FORMAT_GGUF_H

#include "base/file.h"
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

/* Text inside the file's memory: not followed by a zero byte. */
typedef struct kh_slice {
    const char *data;
    size_t size;
} kh_slice;

typedef struct kh_gguf_value {
    kh_slice key;
    kh_gguf_kind kind;    /* KH_GGUF_ARRAY for arrays */
    kh_gguf_kind element; /* element kind of an array */
    uint64_t count;       /* elements of an array, 1 otherwise */
    const uint8_t *data;  /* the first element, unaligned, as in a file */
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

/* ---- files put together in memory (a Hugging Face folder, a conversion) ----
 *
 * All readers above serve such a file too. What is passed in is copied, but for tensor data. Adding a
 * value or a tensor may move the ones before it: pointers from the readers hold until the next addition.
 * On failure the file is as it was. A name that is there already, or is no name, is KH_ERR_FORMAT. */

/* An empty file; `path` names it in sentences. */
kh_status kh_gguf_new(kh_gguf **out, const char *path);
/* Any integer kind, or BOOL; KH_ERR_ARGUMENT when the value does not fit. */
kh_status kh_gguf_set_u64(kh_gguf *file, const char *key, kh_gguf_kind kind, uint64_t value);
kh_status kh_gguf_set_f32(kh_gguf *file, const char *key, float value);
kh_status kh_gguf_set_string(kh_gguf *file, const char *key, kh_slice value);
kh_status kh_gguf_set_strings(kh_gguf *file, const char *key, const kh_slice *values, size_t count);
/* Elements of a kind of fixed size, as the processor lays them out. */
kh_status kh_gguf_set_array(kh_gguf *file, const char *key, kh_gguf_kind element,
                            const void *values, size_t count);
/* A copy of another file's value, whatever it is. */
kh_status kh_gguf_set_value(kh_gguf *file, const kh_gguf_value *value);
/* dims fastest first. `data` is borrowed and lives as long as the file (see kh_gguf_keep); aligned to
 * its numbers (4 bytes for F32, 2 otherwise); NULL for a tensor that is only described. */
kh_status kh_gguf_add_tensor(kh_gguf *file, const char *name, kh_type type, int n_dims,
                             const uint64_t *dims, const void *data);
/* Calls close(object) when the file is closed, the last one first: buffers and files that tensors lie
 * in. The object is the file's from here on; when this fails it is closed at once. */
kh_status kh_gguf_keep(kh_gguf *file, void (*close)(void *object), void *object);
/* The same for a mapping, which kh_gguf_release then knows; *map is empty afterwards. */
kh_status kh_gguf_keep_map(kh_gguf *file, kh_map *map);

/* ---- files written ---- */

/* Writes any file, parsed or composed, as one GGUF v3 file that appears under `path` when it is whole
 * (kh_outfile). The parts of a split model become one. */
kh_status kh_gguf_write(const kh_gguf *file, const char *path);
/* The same with data from elsewhere: source(context, tensor, out) is called once for every tensor, in
 * order, and writes exactly tensor->size bytes, or fails. */
typedef kh_status kh_gguf_source(void *context, const kh_tensor *tensor, kh_outfile *out);
kh_status kh_gguf_write_from(const kh_gguf *file, const char *path, kh_gguf_source *source,
                             void *context);

#endif

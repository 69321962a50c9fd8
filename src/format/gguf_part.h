/* format/gguf_part.h: one file of a GGUF model, parsed and checked; private to gguf*.c. */
#ifndef KH_FORMAT_GGUF_PART_H
#define KH_FORMAT_GGUF_PART_H

#include "base/file.h"
#include "format/gguf.h"

/* Names with their indices, in the order in which they were added. */
typedef struct kh_names {
    kh_slice *names; /* [capacity], inside memory of the caller's */
    uint32_t *slots; /* [mask + 1], index + 1; 0: empty */
    size_t count, capacity, mask;
    uint64_t seed;
} kh_names;

kh_status kh_names_init(kh_names *names, size_t capacity, const char *what);
void kh_names_free(kh_names *names);
/* Room for one name more; indices stay. On failure nothing changed. */
kh_status kh_names_grow(kh_names *names, const char *what);
/* Index of the name, or SIZE_MAX. Any number of readers. */
size_t kh_names_find(const kh_names *names, kh_slice name);
/* Appends a name; false (nothing changed) when it is there already. */
int kh_names_add(kh_names *names, kh_slice name);

typedef struct kh_gguf_entry {
    kh_tensor tensor;
    uint64_t offset; /* from the start of the part's data */
} kh_gguf_entry;

typedef struct kh_gguf_part {
    char *path;
    kh_map map;
    int mapped;   /* the mapping is ours; else the caller's memory */
    int composed; /* values lie in memory that the file keeps, not in a mapping */
    uint32_t version;
    size_t data_at; /* where tensor data begins; may lie behind the end when there is none */
    uint64_t alignment;
    kh_gguf_value *values; /* [n_values] */
    kh_slice *texts;       /* [n_values], what the scalar strings point to */
    size_t n_values;
    kh_names keys;
    kh_gguf_entry *entries; /* [n_entries] */
    size_t n_entries;
    char *tensor_names; /* zero-terminated, one behind the other */
} kh_gguf_part;

/* Something that lives as long as the file. */
typedef struct kh_gguf_kept {
    void (*close)(void *object);
    void *object;
} kh_gguf_kept;

struct kh_gguf {
    char *path;          /* as the caller wrote it */
    kh_gguf_part *parts; /* [n_parts] */
    size_t n_parts;
    kh_tensor *tensors; /* [names.count] */
    kh_names names;
    /* composed files only; closed last to first */
    kh_gguf_kept *kept; /* [n_kept] */
    size_t n_kept, kept_room, values_room, tensors_room;
};

/* Sets t->type and t->size from a type's id and t->dims, or refuses; `what` is "tensor 'x'". */
kh_status kh_gguf_measure(kh_tensor *t, uint32_t type, const char *path, const char *what);
/* A model with one empty part that is named and nothing else. */
kh_status kh_gguf_begin(kh_gguf **out, const char *path);
/* What size and identity of a composed file are made of. */
uint64_t kh_gguf_composed_size(const kh_gguf *file);
uint64_t kh_gguf_composed_identity(const kh_gguf *file, uint64_t seed);
/* Bytes into a 64-bit state; not cryptographic. */
uint64_t kh_gguf_mix(uint64_t h, const void *data, size_t size);
/* Bytes of one value of a kind of fixed size; 0 for strings and arrays. */
size_t kh_gguf_kind_bytes(kh_gguf_kind kind);
enum {
    KH_GGUF_MAX_KEY = 65535,
    KH_GGUF_MAX_NAME = 255
}; /* bytes, of a key and of a tensor's name */

/* Parses part->map, named by part->path. On failure the part still wants kh_gguf_part_free. */
kh_status kh_gguf_part_parse(kh_gguf_part *part);
kh_status kh_gguf_part_open(kh_gguf_part *part, const char *path);
void kh_gguf_part_free(kh_gguf_part *part);

const kh_gguf_value *kh_gguf_part_find(const kh_gguf_part *part, const char *key);
/* As kh_gguf_opt_u64. */
kh_status kh_gguf_part_opt_u64(const kh_gguf_part *part, const char *key, uint64_t *out,
                               uint64_t max);

/* The part whose metadata are the model's. */
const kh_gguf_part *kh_gguf_first_part(const kh_gguf *file);

/* The name of part `index` (from 0) of `count`, made from the name of any of them; KH_ERR_FORMAT when
 * `path` does not end in "-00002-of-00003.gguf". The caller frees *out with kh_free. */
kh_status kh_gguf_split_path(char **out, const char *path, uint64_t index, uint64_t count);

/* A name out of a file, fit for a sentence: cut to the buffer, unprintable bytes as '?'. */
typedef struct kh_shown {
    char text[80];
} kh_shown;
kh_shown kh_gguf_show(kh_slice name);

#endif

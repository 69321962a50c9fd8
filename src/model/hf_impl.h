/* model/hf_impl.h: a folder that is being read; private to hf_*.c. */
#ifndef KH_MODEL_HF_IMPL_H
#define KH_MODEL_HF_IMPL_H

#include "format/json.h"
#include "format/safetensors.h"
#include "model/description.h"
#include "model/hf.h"

struct kh_hf {
    char *folder; /* ends with '/' */
    char *config; /* path of config.json, for sentences */
    json_t *root; /* config.json */
    json_t *text; /* its part about text, or root */
    const kh_family *family;
    const kh_hf_map *map;
    kh_safetensors *weights;
    uint8_t *used; /* [kh_safetensors_count(weights)] */
    kh_gguf *file;
    int tied;
    uint64_t skipped_positions;
    uint64_t sizes[128]; /* of the letters in kh_hf_tensor.shape; 0: not known */
};

/* Walks "a|b|c": sets *word to the next one, of *size bytes, and moves *list behind it; 0 at the end. An
 * empty last word counts ("model.|" has two). */
int kh_hf_next_word(const char **list, const char **word, size_t *size);
/* Is `word` one of the list's? */
int kh_hf_has_word(const char *list, const char *word);

/* The first of the fields "a|b" that is there and not null, in the part about text or around it. */
json_t *kh_hf_field(const kh_hf *hf, const char *fields);
/* A number that is set in hf->file under "ARCHITECTURE.key"; left alone when absent. */
kh_status kh_hf_value(const kh_hf *hf, const char *key, uint64_t *out);
/* "ARCHITECTURE.key", or the key itself when it is a whole one. */
typedef struct kh_hf_name {
    char text[128];
} kh_hf_name;
kh_hf_name kh_hf_key_name(const kh_family *family, const char *key);
/* The keys that all families share. */
extern const kh_hf_key kh_hf_shared_keys[];

/* config.json -> values of hf->file; needs hf->map. */
kh_status kh_hf_read_config(kh_hf *hf);
/* Rotary positions: theta before the families' tables give their default, the rest behind them. */
kh_status kh_hf_read_theta(kh_hf *hf);
kh_status kh_hf_read_rope(kh_hf *hf);
/* Tensors of hf->weights -> tensors of hf->file; needs the values. */
kh_status kh_hf_read_tensors(kh_hf *hf);
/* Fills hf->sizes from the values of hf->file. */
kh_status kh_hf_read_sizes(kh_hf *hf);
/* Adds an f32 vector of which `data` (from kh_alloc) becomes the file's. */
kh_status kh_hf_add_vector(kh_hf *hf, const char *name, float *data, size_t n);

/* Adds layer, expert and suffix to a row's name. */
enum { KH_HF_NAME = 256 };
void kh_hf_expand(char out[KH_HF_NAME], const char *from, uint64_t layer, uint64_t expert,
                  const char *suffix);
/* The row of a module of a folder, "model.layers.0.mlp.up_proj", behind any of the map's prefixes; NULL if none. */
const kh_hf_tensor *kh_hf_row_of_module(const kh_hf_map *map, const char *module, uint64_t *layer);
/* The row by which a folder gets the GGUF tensor "blk.0.ffn_up.weight"; NULL if none. */
const kh_hf_tensor *kh_hf_row_of_tensor(const kh_gguf *file, const kh_hf_map *map,
                                        const char *tensor, uint64_t *layer);
/* Is it this row, of those that read the same tensor? */
int kh_hf_row_is_written(const kh_gguf *file, const kh_hf_tensor *row, const char *tensor);
/* The name that a folder gives it, with the map's first prefix. */
void kh_hf_written_name(char out[2 * KH_HF_NAME], const kh_hf_map *map, const kh_hf_tensor *row,
                        uint64_t layer, uint64_t expert, const char *suffix);
/* The form of the architecture that has what the model has; NULL if none. */
const kh_hf_map *kh_hf_written_map(const kh_family *family, const kh_description *d,
                                   const kh_gguf *file);
/* What Llama 3's scaling divides frequency i of n_rot/2 by. */
double kh_hf_llama3_divisor(double base, size_t i, size_t n_rot, double factor, double low,
                            double high, double original);

/* A model that is being written. */
typedef struct kh_hf_out {
    const kh_gguf *file;
    const kh_family *family;
    const kh_hf_map *map;
    kh_type type;                      /* of matrices; KH_TYPE_NONE: as they are */
    const struct kh_lora_merge *merge; /* NULL: none */
    kh_description d;
} kh_hf_out;
kh_status kh_hf_write_config(kh_hf_out *out, const char *path);

/* ---- conversions of bytes; `each` is the size of an element, 2 or 4 ---- */

/* Blocks [a][b] of `bytes` each to [b][a]. */
void kh_hf_swap_blocks(void *out, const void *in, size_t a, size_t b, size_t bytes);
/* [rows][cols] to [cols][rows]. */
void kh_hf_transpose(void *out, const void *in, size_t rows, size_t cols, size_t each);
/* F32, F16 and BF16, unaligned, plus `added`. */
void kh_hf_to_f32(float *out, const void *in, kh_type type, size_t n, float added);

#endif

/* tensor/types.h: element types, their blocks and sizes. No arithmetic.
 *
 * Block layouts are facts of the GGUF format (specification: ggml's GGUF document and quantisation
 * types). Ids are those that a GGUF file carries. */
#ifndef KH_TENSOR_TYPES_H
#define KH_TENSOR_TYPES_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

/* name, GGUF id, elements per block, bytes per block */
#define KH_TYPE_LIST(X)                                                                            \
    X(F32, 0, 1, sizeof(float))                                                                    \
    X(F16, 1, 1, 2)                                                                                \
    X(Q4_0, 2, 32, 18)                                                                             \
    X(Q4_1, 3, 32, 20)                                                                             \
    X(Q5_0, 6, 32, 22)                                                                             \
    X(Q5_1, 7, 32, 24)                                                                             \
    X(Q8_0, 8, 32, 34)                                                                             \
    X(Q2_K, 10, 256, 84)                                                                           \
    X(Q3_K, 11, 256, 110)                                                                          \
    X(Q4_K, 12, 256, 144)                                                                          \
    X(Q5_K, 13, 256, 176)                                                                          \
    X(Q6_K, 14, 256, 210)                                                                          \
    X(IQ4_NL, 20, 32, 18)                                                                          \
    X(IQ4_XS, 23, 256, 136)                                                                        \
    X(BF16, 30, 1, 2)

typedef enum kh_type {
#define KH_TYPE_ENUM(name, id, elements, bytes) KH_TYPE_##name = id,
    KH_TYPE_LIST(KH_TYPE_ENUM)
#undef KH_TYPE_ENUM
        KH_TYPE_NONE = -1
} kh_type;
enum { KH_TYPE_LIMIT = 31 }; /* ids above this are unknown to us */

typedef struct kh_block_q4_0 {
    uint16_t d;     /* f16 scale */
    uint8_t qs[16]; /* element i: low nibble of qs[i], element i + 16: high nibble; minus 8 */
} kh_block_q4_0;
typedef struct kh_block_q4_1 {
    uint16_t d, m; /* f16 scale, f16 minimum */
    uint8_t qs[16];
} kh_block_q4_1;
typedef struct kh_block_q5_0 {
    uint16_t d;
    uint8_t qh[4]; /* bit i: fifth bit of element i */
    uint8_t qs[16];
} kh_block_q5_0;
typedef struct kh_block_q5_1 {
    uint16_t d, m;
    uint8_t qh[4];
    uint8_t qs[16];
} kh_block_q5_1;
typedef struct kh_block_q8_0 {
    uint16_t d;
    int8_t qs[32];
} kh_block_q8_0;
typedef struct kh_block_q2_k {
    uint8_t scales[16]; /* low nibble scale, high nibble minimum, of 16 elements each */
    uint8_t qs[64];
    uint16_t d, dmin;
} kh_block_q2_k;
typedef struct kh_block_q3_k {
    uint8_t hmask[32];
    uint8_t qs[64];
    uint8_t scales[12]; /* sixteen 6-bit scales */
    uint16_t d;
} kh_block_q3_k;
typedef struct kh_block_q4_k {
    uint16_t d, dmin;
    uint8_t scales[12]; /* eight 6-bit scales and eight 6-bit minima, of 32 elements each */
    uint8_t qs[128];
} kh_block_q4_k;
typedef struct kh_block_q5_k {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t qh[32];
    uint8_t qs[128];
} kh_block_q5_k;
typedef struct kh_block_q6_k {
    uint8_t ql[128];
    uint8_t qh[64];
    int8_t scales[16]; /* of 16 elements each */
    uint16_t d;
} kh_block_q6_k;
typedef struct kh_block_iq4_nl {
    uint16_t d;
    uint8_t qs[16]; /* nibbles index a table of 16 levels */
} kh_block_iq4_nl;
typedef struct kh_block_iq4_xs {
    uint16_t d;
    uint16_t scales_h;
    uint8_t scales_l[4];
    uint8_t qs[128];
} kh_block_iq4_xs;

static_assert(sizeof(kh_block_q4_0) == 18, "Q4_0");
static_assert(sizeof(kh_block_q4_1) == 20, "Q4_1");
static_assert(sizeof(kh_block_q5_0) == 22, "Q5_0");
static_assert(sizeof(kh_block_q5_1) == 24, "Q5_1");
static_assert(sizeof(kh_block_q8_0) == 34, "Q8_0");
static_assert(sizeof(kh_block_q2_k) == 84, "Q2_K");
static_assert(sizeof(kh_block_q3_k) == 110, "Q3_K");
static_assert(sizeof(kh_block_q4_k) == 144, "Q4_K");
static_assert(sizeof(kh_block_q5_k) == 176, "Q5_K");
static_assert(sizeof(kh_block_q6_k) == 210, "Q6_K");
static_assert(sizeof(kh_block_iq4_nl) == 18, "IQ4_NL");
static_assert(sizeof(kh_block_iq4_xs) == 136, "IQ4_XS");

/* True for the types of KH_TYPE_LIST; the functions below want such a type. */
int kh_type_known(int id);
const char *kh_type_name(kh_type type); /* "Q4_1" */
size_t kh_type_block(kh_type type);     /* elements per block */
size_t kh_type_bytes(kh_type type);     /* bytes per block */
/* Name of any id that the format has ever assigned ("IQ2_XXS"), or NULL: for refusals. */
const char *kh_type_foreign_name(int id);
/* Bytes of one row of n elements; n is a multiple of the block (the caller checked). */
size_t kh_type_row_bytes(kh_type type, size_t n);

/* A matrix or vector as it lies in a file: rows of `cols` elements, row-major, the fast axis last
 * (GGUF's dimension 0). */
typedef struct kh_tensor {
    const char *name; /* owned by the file; NULL for views */
    kh_type type;
    int n_dims;
    uint64_t dims[4]; /* fastest first, as in the file; unused ones are 1 */
    const void *data;
    size_t size; /* bytes */
} kh_tensor;

#endif

/* kern/encode_row.h: f32 rows to the block types of GGUF, the opposite of unpack_f32_*. Pure functions,
 * with the same bytes for every instruction set. */
#ifndef KH_KERN_ENCODE_ROW_H
#define KH_KERN_ENCODE_ROW_H

#include "cpu/cpu.h"
#include "tensor/types.h"

#include <stddef.h>

/* y: a row of n elements in some type, n a multiple of its block; x [n]. Elements are finite and no
 * larger than the type's numbers reach (kh_encode_limit); others give some block, never a crash. */
typedef void kh_encode(void *y, const float *x, size_t n);

/* NULL for a type that is read but not written, and for KH_TYPE_NONE. */
kh_encode *kh_encode_of(kh_isa isa, kh_type type);
/* The largest |x| that the type can hold. */
float kh_encode_limit(kh_type type);

/* One for each instruction set. */
kh_encode *kh_encode_of_ref(kh_type type);
kh_encode *kh_encode_of_avx2(kh_type type);

#endif

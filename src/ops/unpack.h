/* ops/unpack.h: which unpacking kernels a type of weights has. */
#ifndef KH_OPS_UNPACK_H
#define KH_OPS_UNPACK_H

#include "kern/kern.h"
#include "tensor/types.h"

typedef void kh_unpack_f32(float *y, const void *x, size_t n);
typedef void kh_unpack_q8(int8_t *q, float *d, float *m, const void *x, size_t n);

typedef struct kh_unpack {
    kh_unpack_f32 *f32; /* NULL for F32, whose rows are used as they are */
    kh_unpack_q8 *q8;   /* NULL for dense types */
    int bits;           /* as kern/panel.h wants it; 0 for dense types */
} kh_unpack;

/* `type` is one of KH_TYPE_LIST. */
kh_unpack kh_unpack_of(const kh_kern *kern, kh_type type);

#endif

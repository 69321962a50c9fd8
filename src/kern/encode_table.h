/* kern/encode_table.h: the encoders of one instruction set: define ENCODE_OF and include. */
#include "kern/encode_k_body.h"
#include "kern/encode_row.h"
#include "kern/encode_small_body.h"

kh_encode *ENCODE_OF(kh_type type)
{
    switch (type) {
    case KH_TYPE_F32: return encode_f32;
    case KH_TYPE_F16: return encode_f16;
    case KH_TYPE_BF16: return encode_bf16;
    case KH_TYPE_Q8_0: return encode_q8_0;
    case KH_TYPE_Q4_0: return encode_q4_0;
    case KH_TYPE_Q4_1: return encode_q4_1;
    case KH_TYPE_Q5_0: return encode_q5_0;
    case KH_TYPE_Q5_1: return encode_q5_1;
    case KH_TYPE_Q2_K: return encode_q2_k;
    case KH_TYPE_Q3_K: return encode_q3_k;
    case KH_TYPE_Q4_K: return encode_q4_k;
    case KH_TYPE_Q5_K: return encode_q5_k;
    case KH_TYPE_Q6_K: return encode_q6_k;
    case KH_TYPE_IQ4_NL:
    case KH_TYPE_IQ4_XS:
    case KH_TYPE_NONE: break;
    }
    return NULL;
}

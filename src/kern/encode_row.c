/* The encoders in plain C, which define the bytes, and the choice between them and those for AVX2.
 *
 * Both are the same bodies over eight lanes, and give the same bytes: products and sums are rounded
 * one by one everywhere, and lanes are added in one order. */
#define ENCODE_OF kh_encode_of_ref
#include "kern/encode_table.h"

kh_encode *kh_encode_of(kh_isa isa, kh_type type)
{
#ifdef KH_X86
    if (isa >= KH_ISA_AVX2) return kh_encode_of_avx2(type);
#endif
    (void)isa;
    return kh_encode_of_ref(type);
}

float kh_encode_limit(kh_type type)
{
    return type == KH_TYPE_F32    ? FLT_MAX
           : type == KH_TYPE_BF16 ? kh_bf16_to_f32(0x7f7f)
                                  : kh_f16_to_f32(0x7bff);
}

/* The table from types to unpacking kernels and panel forms.
 *
 * Levels of up to 4 bits share one panel form (16-bit sums over a whole group), 5 and 6 bits another,
 * signed bytes the third; Q2_K, Q3_K and Q6_K have a scale for every 16 elements. */
#include "ops/unpack.h"

#include "kern/panel.h"

kh_unpack kh_unpack_of(const kh_kern *kern, kh_type type)
{
#define CASE(TYPE, type, bits)                                                                     \
    case KH_TYPE_##TYPE: return (kh_unpack){kern->unpack_f32_##type, kern->unpack_q8_##type, bits};
    switch (type) {
        CASE(Q4_0, q4_0, 4)
        CASE(Q4_1, q4_1, 4)
        CASE(Q5_0, q5_0, 6)
        CASE(Q5_1, q5_1, 6)
        CASE(Q8_0, q8_0, 8)
        CASE(Q2_K, q2_k, 4 | KH_PANEL_HALVES)
        CASE(Q3_K, q3_k, 4 | KH_PANEL_HALVES)
        CASE(Q4_K, q4_k, 4)
        CASE(Q5_K, q5_k, 6)
        CASE(Q6_K, q6_k, 6 | KH_PANEL_HALVES)
        CASE(IQ4_NL, iq4_nl, 8)
        CASE(IQ4_XS, iq4_xs, 8)
    case KH_TYPE_F16: return (kh_unpack){.f32 = kern->unpack_f32_f16};
    case KH_TYPE_BF16: return (kh_unpack){.f32 = kern->unpack_f32_bf16};
    case KH_TYPE_F32:
    case KH_TYPE_NONE: break;
    }
#undef CASE
    return (kh_unpack){0};
}

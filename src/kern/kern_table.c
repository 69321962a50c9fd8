/* The dispatch tables, one for each instruction set, expanded from the list.
 *
 * A table is chosen once, at the start of a run, and carried in kh_run: a kernel call costs one
 * indirect jump, and a test can run two levels side by side. A kernel without a body at some level
 * takes the nearest lower one. */
#include "kern/kern.h"

#ifdef KH_X86
#define AVX2_R(name)   name##_ref
#define AVX2_A(name)   name##_avx2
#define AVX2_B(name)   name##_avx2
#define AVX2_C(name)   name##_avx2
#define AVX512_R(name) name##_ref
#define AVX512_A(name) name##_avx2
#define AVX512_B(name) name##_avx512
#define AVX512_C(name) name##_avx512
#define VNNI_R(name)   name##_ref
#define VNNI_A(name)   name##_avx2
#define VNNI_B(name)   name##_avx512
#define VNNI_C(name)   name##_avx512vnni
#endif

#define REF(level, ret, name, args)    .name = name##_ref,
#define AVX2(level, ret, name, args)   .name = AVX2_##level(name),
#define AVX512(level, ret, name, args) .name = AVX512_##level(name),
#define VNNI(level, ret, name, args)   .name = VNNI_##level(name),

static const kh_kern tables[KH_ISA_COUNT] = {
    [KH_ISA_REF] = {.isa = KH_ISA_REF, KH_KERN_LIST(REF)},
#ifdef KH_X86
    [KH_ISA_AVX2] = {.isa = KH_ISA_AVX2, KH_KERN_LIST(AVX2)},
    [KH_ISA_AVX512] = {.isa = KH_ISA_AVX512, KH_KERN_LIST(AVX512)},
    [KH_ISA_AVX512VNNI] = {.isa = KH_ISA_AVX512VNNI, KH_KERN_LIST(VNNI)},
#endif
};

const kh_kern *kh_kern_get(kh_isa isa)
{
#ifdef KH_X86
    return &tables[isa];
#else
    (void)isa;
    return &tables[KH_ISA_REF];
#endif
}

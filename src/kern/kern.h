/* kern/kern.h: the table of kernels of one instruction set, and the prototypes of every body. */
#ifndef KH_KERN_KERN_H
#define KH_KERN_KERN_H

#include "cpu/cpu.h"
#include "kern/kern_list.h"

#include <stddef.h>
#include <stdint.h>

typedef struct kh_kern {
    kh_isa isa;
#define KH_FIELD(level, ret, name, args) ret(*name) args;
    KH_KERN_LIST(KH_FIELD)
#undef KH_FIELD
} kh_kern;

/* The table of a level; levels above what was built or what the caller may use are the caller's to
 * avoid: pass kh_cpu_isa(). Static, never freed. */
const kh_kern *kh_kern_get(kh_isa isa);

#define KH_PROTO_R(ret, name, args)      ret name##_ref args;
#define KH_PROTO_A(ret, name, args)      KH_PROTO_R(ret, name, args) ret name##_avx2 args;
#define KH_PROTO_B(ret, name, args)      KH_PROTO_A(ret, name, args) ret name##_avx512 args;
#define KH_PROTO_C(ret, name, args)      KH_PROTO_B(ret, name, args) ret name##_avx512vnni args;
#define KH_PROTO(level, ret, name, args) KH_PROTO_##level(ret, name, args)
KH_KERN_LIST(KH_PROTO)
#undef KH_PROTO

#endif

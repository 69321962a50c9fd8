/* Reading a shadow with AVX-512 VNNI: as shadow_avx512.c, a pair of products and its sum in one instruction
 * (vpdpwssd). */
#include "kern/shadow_avx512.h"

#define BODY      shadow_score_avx512vnni
#define dot_pairs _mm512_dpwssd_epi32
#include "kern/shadow_body.h"

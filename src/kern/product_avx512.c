/* The prompt product in f32 over AVX-512: two panels against twelve tokens take 24 of 32 registers,
 * and x is broadcast by the load that feeds the fma. */
#include "kern/vec_avx512.h"

enum { TILE_PANELS = 2, TILE_T = 12 };
#define TILE_CASES                                                                                 \
    CASE(1)                                                                                        \
    CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)

#include "kern/product_body.h"

/* The prompt product in f32 over AVX2: one panel (two registers wide) against six tokens takes 12 of
 * 16 registers. */
#include "kern/vec_avx2.h"

enum { TILE_PANELS = 1, TILE_T = 6 };
#define TILE_CASES CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)

#include "kern/product_body.h"

/* Decode products of the file's blocks with f32 activations over AVX2. */
#include "kern/levels_avx2.h"

#include "kern/gemv_blocks_body.h"

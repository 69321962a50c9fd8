/* Decode products of the file's blocks with f32 activations over AVX-512. */
#include "kern/levels_avx512.h"

#include "kern/gemv_blocks_body.h"

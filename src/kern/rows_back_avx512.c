/* The derivatives of the row kernels over AVX-512; see rows_back.c for what they mean. */
#include "kern/vec_avx512.h"

#include "kern/rows_back_body.h"

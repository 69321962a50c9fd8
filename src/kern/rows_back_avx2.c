/* The derivatives of the row kernels over AVX2; see rows_back.c for what they mean. */
#include "kern/vec_avx2.h"

#include "kern/rows_back_body.h"

/* Dense decode products over AVX-512: bound by the memory that holds the weights. */
#include "kern/vec_avx512.h"
#include "tensor/half.h"

#include <math.h>

#include "kern/gemv_dense_body.h"

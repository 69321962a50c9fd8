/* Rows of the file to f32 over AVX2: what a prompt's product begins with. */
#include "kern/levels_avx2.h"

#include "kern/unpack_body.h"

/* Rows of the file to f32 over AVX-512: what a prompt's product begins with. */
#include "kern/levels_avx512.h"

#include "kern/unpack_body.h"

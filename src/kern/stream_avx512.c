/* Scores where keys come from memory, with AVX-512: stream_body.h over vec_avx512.h. */
#include "kern/vec_avx512.h"

enum { TILE_ROWS = 6, TILE_COLS = 4, LISTED = 8 };

#include "kern/stream_body.h"

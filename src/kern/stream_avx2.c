/* Scores where keys come from memory, with AVX2: stream_body.h over vec_avx2.h. */
#include "kern/vec_avx2.h"

enum { TILE_ROWS = 6, TILE_COLS = 1, LISTED = 4 };

#include "kern/stream_body.h"

/* Full attention: every key that a row sees. The reference that the other methods are measured by. */
#include "attn/method.h"
#include "attn/scorer.h"

static void select_all(kh_tile *t)
{
    for (size_t r = 0; r < t->R; r++) {
        kh_range seen = kh_tile_seen(t, r);
        t->keys.ranges[2 * r] = seen;
        t->keys.ranges[2 * r + 1] = (kh_range){seen.end, seen.end};
    }
}

const kh_attn_method kh_attn_full = {
    .name = "full",
    .kind = KH_KEYS_RANGES,
    .everything = "full",
    .select = select_all,
};

/* A sliding window with attention sinks (Xiao et al., "Efficient streaming language models with
 * attention sinks", 2023): the last `recent` keys, the row's own included, and the first `sinks`.
 *
 * Positions are those of the sequence: nothing is renumbered inside the window, and the cache keeps
 * everything, so the same sequence can be read again with another method. */
#include "attn/method.h"
#include "attn/scorer.h"

static uint32_t clamp(uint32_t x, kh_range range)
{
    return x < range.begin ? range.begin : x > range.end ? range.end : x;
}

static void select_window(kh_tile *t)
{
    for (size_t r = 0; r < t->R; r++) {
        kh_range seen = kh_tile_seen(t, r);
        uint32_t sinks = clamp((uint32_t)t->setting->sinks, seen);
        uint32_t recent = clamp(kh_tile_recent(t, r), seen);
        t->keys.ranges[2 * r] = (kh_range){seen.begin, sinks};
        t->keys.ranges[2 * r + 1] = (kh_range){recent > sinks ? recent : sinks, seen.end};
    }
}

const kh_attn_method kh_attn_window = {
    .name = "window",
    .kind = KH_KEYS_RANGES,
    .params = KH_PARAM_RECENT | KH_PARAM_SINKS,
    .needs = KH_PARAM_RECENT,
    .everything = "window:recent=1000000",
    .select = select_window,
};

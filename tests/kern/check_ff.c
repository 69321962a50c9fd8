/* Checks of the sparse products of feed-forward layers: equal bits, whatever the lengths of the lists,
 * and nothing touched beside them. */
#include "check.h"

#include "kern/ff_kern.h"

#include <stdlib.h>
#include <string.h>

enum { LISTS = 9, MOST = 70, ROWS = 300, ENTRIES = LISTS * (MOST + 3) };

typedef struct lists {
    uint32_t indices[ENTRIES], begin[LISTS], end[LISTS], first;
    float panel[ROWS * KH_FF_PANEL], x[LISTS * KH_FF_PANEL], weights[ENTRIES];
} lists;

/* Lists of different lengths with gaps between them, the empty one included. */
static lists *make(size_t round)
{
    lists *l = malloc(sizeof *l);
    uint32_t at = 2;
    l->first = round % 2 ? 1000 : 0;
    for (size_t r = 0; r < LISTS; r++) {
        uint32_t n = (uint32_t)(r < 4 ? (round + r) % 18 : check_random() % MOST);
        l->begin[r] = at;
        l->end[r] = at + n;
        at += n + (uint32_t)(round % 3);
    }
    for (size_t i = 0; i < ENTRIES; i++)
        l->indices[i] = l->first + (uint32_t)(check_random() % ROWS);
    check_fill(l->panel, ROWS * KH_FF_PANEL, 1.0f);
    check_fill(l->x, LISTS * KH_FF_PANEL, 1.0f);
    check_fill(l->weights, ENTRIES, 2.0f);
    return l;
}

void check_listed_mix(const kh_kern *ref, const kh_kern *other)
{
    static float out[2][(LISTS + 1) * KH_FF_PANEL];
    for (size_t round = 0; round < 60; round++) {
        lists *l = make(round);
        check_fill(out[0], (LISTS + 1) * KH_FF_PANEL, 1.0f);
        memcpy(out[1], out[0], sizeof out[0]);
        ref->listed_mix(out[0], l->weights, l->indices, l->begin, l->end, LISTS, l->panel,
                        l->first);
        other->listed_mix(out[1], l->weights, l->indices, l->begin, l->end, LISTS, l->panel,
                          l->first);
        check_bits("mix", out[1], out[0], (LISTS + 1) * KH_FF_PANEL);
        free(l);
    }
}

void check_listed_dot(const kh_kern *ref, const kh_kern *other)
{
    static float sums[2][ENTRIES];
    for (size_t round = 0; round < 60; round++) {
        lists *l = make(round);
        check_fill(sums[0], ENTRIES, 1.0f);
        memcpy(sums[1], sums[0], sizeof sums[0]);
        ref->listed_dot(sums[0], l->x, l->indices, l->begin, l->end, LISTS, l->panel, l->first);
        other->listed_dot(sums[1], l->x, l->indices, l->begin, l->end, LISTS, l->panel, l->first);
        check_bits("dot", sums[1], sums[0], ENTRIES);
        free(l);
    }
}

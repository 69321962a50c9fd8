/* kern/tile_switch.h: rows of a tile, at most six, as constants, so that its accumulators stay in
 * registers: TILE_SWITCH(rows, CALL) expands to CALL(1) .. CALL(6), of which one runs; 6 for more. */
#ifndef KH_KERN_TILE_SWITCH_H
#define KH_KERN_TILE_SWITCH_H

#define TILE_CASE(r, call)                                                                         \
    case r:                                                                                        \
        call(r);                                                                                   \
        break;
#define TILE_SWITCH(rows, call)                                                                    \
    switch (rows) {                                                                                \
        TILE_CASE(1, call)                                                                         \
        TILE_CASE(2, call)                                                                         \
        TILE_CASE(3, call)                                                                         \
        TILE_CASE(4, call)                                                                         \
        TILE_CASE(5, call)                                                                         \
    default: call(6); break;                                                                       \
    }

#endif

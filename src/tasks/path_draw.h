/* tasks/path_draw.h: what a Pathfinder picture is drawn with: paddles, the area that they occupy, and
 * markers, at twice the resolution and reduced. Brightness and occupation are levels, 0 .. 255. */
#ifndef KH_TASKS_PATH_DRAW_H
#define KH_TASKS_PATH_DRAW_H

#include <stdint.h>

enum {
    KH_PATH_SCALE = 2,
    KH_PATH_MOST_HALF = 10,
    KH_PATH_SIDE = 2 * KH_PATH_MOST_HALF + 1,
    KH_PATH_BIG_SIDE = 2 * KH_PATH_SCALE * KH_PATH_MOST_HALF + 1,
    KH_PATH_MOST_AROUND = 64,
    KH_PATH_ANGLES = 360
};

/* One paddle, from the middle of a square along a direction. */
typedef struct kh_path_stamp {
    int side;
    uint8_t line[KH_PATH_SIDE * KH_PATH_SIDE]; /* [side][side] brightness */
    uint8_t mask[KH_PATH_SIDE * KH_PATH_SIDE]; /* [side][side] how much of a pixel is occupied */
    int core_count;
    int8_t core[KH_PATH_SIDE * KH_PATH_SIDE]
               [2]; /* [core_count] (dy, dx) of wholly occupied pixels */
} kh_path_stamp;

/* A pixel of the circle on which the next paddle may end. */
typedef struct kh_path_around {
    int dy, dx;         /* from the centre */
    double angle;       /* of (dy, dx) */
    kh_path_stamp back; /* the paddle that ends there, from its head */
} kh_path_around;

/* Paddles of one length, thickness and margin. */
typedef struct kh_path_pen {
    int length, margin;
    int width;                                     /* thickness in pixels of twice the resolution */
    int half;                                      /* a stamp reaches this far from its start */
    double reduce[KH_PATH_SIDE][KH_PATH_BIG_SIDE]; /* [2 half + 1][4 half + 1] weights */
    kh_path_around around[KH_PATH_MOST_AROUND];    /* [around_count] of radius length + margin */
    int around_count;
    kh_path_stamp first[KH_PATH_ANGLES]; /* paddles at -180, -179 ... 179 degrees */
} kh_path_pen;
/* Draws all of a pen's stamps. A pen takes 0.6 MB. */
void kh_path_pen_init(kh_path_pen *pen, int length, int width, int margin);

/* A paddle of a pen along the direction (uy, ux), a vector of length 1. */
void kh_path_draw(kh_path_stamp *out, const kh_path_pen *pen, double uy, double ux);

/* Merges a filled disk of brightness 1 by maximum. */
void kh_path_disk(float *image /* [size][size] */, int size, int y, int x, double radius);

#endif

/* Drawing for Pathfinder: lines and disks, anti-aliased.
 *
 * A paddle is drawn on a square of twice the resolution: the pixels whose centres are nearer to the
 * segment than half its width. What it occupies is the same line, widened by a disk of the margin's
 * radius. Both are reduced by Lanczos' filter of three lobes, rows and then columns, which is one matrix
 * from both sides; a result is clamped and rounded to 8 bits, as an image is. There are few directions (360
 * whole degrees to begin with, and about 50 pixels around a paddle's end), so all stamps are drawn when a
 * task is opened, and a picture is put together from them.
 *
 * The original draws with an imaging library, whose diagonal lines of width 1 have fewer pixels than
 * ours (one for each step instead of one for each unit of length), so that its slanted paddles are
 * darker; nothing else is known to differ. Distances are compared in whole numbers; sines come from
 * task_math.h. */
#include "tasks/path_draw.h"

#include "tasks/task_math.h"

#include <math.h>
#include <string.h>

enum { LOBES = 3 };

static double lanczos(double x)
{
    double angle = KH_TASK_PI * x;
    if (x <= -LOBES || x >= LOBES) return 0;
    if (fabs(x) < 1e-9) return 1;
    return kh_task_sin(angle) / angle * kh_task_sin(angle / LOBES) / (angle / LOBES);
}

/* Weights of `big` pixels in each of `small` ones, each row summing to 1. */
static void init_reduction(kh_path_pen *pen)
{
    int small = 2 * pen->half + 1, big = 2 * KH_PATH_SCALE * pen->half + 1;
    double scale = (double)big / small;
    for (int i = 0; i < small; i++) {
        double sum = 0;
        for (int j = 0; j < big; j++) {
            pen->reduce[i][j] = lanczos((j + 0.5 - (i + 0.5) * scale) / scale);
            sum += pen->reduce[i][j];
        }
        for (int j = 0; j < big; j++) pen->reduce[i][j] /= sum;
    }
}

/* Pixels that are met when the circle is walked in steps of one pixel. */
static void init_around(kh_path_pen *pen)
{
    double radius = pen->length + pen->margin;
    pen->around_count = 0;
    for (int step = 0; step < 2 * KH_TASK_PI * radius; step++) {
        double angle = step / radius;
        int dy = (int)floor(radius * kh_task_sin(angle));
        int dx = (int)floor(radius * kh_task_cos(angle)), seen = 0;
        for (int i = 0; i < pen->around_count; i++)
            seen |= pen->around[i].dy == dy && pen->around[i].dx == dx;
        if (seen) continue;
        double norm = sqrt((double)(dy * dy + dx * dx));
        kh_path_around *to = &pen->around[pen->around_count++];
        to->dy = dy;
        to->dx = dx;
        to->angle = kh_task_angle(dy, dx);
        kh_path_draw(&to->back, pen, -dy / norm, -dx / norm);
    }
}

void kh_path_pen_init(kh_path_pen *pen, int length, int width, int margin)
{
    pen->length = length;
    pen->margin = margin;
    pen->width = width;
    pen->half = length + (width + KH_PATH_SCALE - 1) / KH_PATH_SCALE + margin;
    init_reduction(pen);
    init_around(pen);
    for (int degrees = 0; degrees < KH_PATH_ANGLES; degrees++) {
        double angle = (degrees - 180) * KH_TASK_PI / 180;
        kh_path_draw(&pen->first[degrees], pen, kh_task_sin(angle), kh_task_cos(angle));
    }
}

static uint8_t level(double share)
{
    double value = floor(share * 255 + 0.5);
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static void reduce(uint8_t *out, const kh_path_pen *pen,
                   const uint8_t *big /* [KH_PATH_BIG_SIDE][KH_PATH_BIG_SIDE] */)
{
    int small = 2 * pen->half + 1, wide = 2 * KH_PATH_SCALE * pen->half + 1;
    double rows[KH_PATH_SIDE][KH_PATH_BIG_SIDE];
    for (int i = 0; i < small; i++)
        for (int x = 0; x < wide; x++) {
            double sum = 0;
            for (int y = 0; y < wide; y++) sum += pen->reduce[i][y] * big[y * KH_PATH_BIG_SIDE + x];
            rows[i][x] = sum;
        }
    for (int i = 0; i < small; i++)
        for (int j = 0; j < small; j++) {
            double sum = 0;
            for (int x = 0; x < wide; x++) sum += pen->reduce[j][x] * rows[i][x];
            out[i * small + j] = level(sum);
        }
}

static void widen(uint8_t *big, int y, int x, int wide, int radius)
{
    for (int dy = -radius; dy <= radius; dy++)
        for (int dx = -radius; dx <= radius; dx++) {
            int inside = y + dy >= 0 && y + dy < wide && x + dx >= 0 && x + dx < wide;
            if (inside && dy * dy + dx * dx <= radius * radius)
                big[(y + dy) * KH_PATH_BIG_SIDE + x + dx] = 1;
        }
}

void kh_path_draw(kh_path_stamp *out, const kh_path_pen *pen, double uy, double ux)
{
    uint8_t line[KH_PATH_BIG_SIDE * KH_PATH_BIG_SIDE], mask[sizeof line];
    int wide = 2 * KH_PATH_SCALE * pen->half + 1, centre = KH_PATH_SCALE * pen->half;
    int reach = KH_PATH_SCALE * pen->length;
    int hy = (int)ceil(reach * uy), hx = (int)ceil(reach * ux), norm = hy * hy + hx * hx;
    memset(line, 0, sizeof line);
    memset(mask, 0, sizeof mask);
    for (int y = 0; y < wide; y++)
        for (int x = 0; x < wide; x++) {
            int along = hy * (y - centre) + hx * (x - centre);
            int across = hx * (y - centre) - hy * (x - centre);
            if (along < 0 || along > norm) continue;
            if (4 * across * across >= pen->width * pen->width * norm) continue;
            line[y * KH_PATH_BIG_SIDE + x] = 1;
            widen(mask, y, x, wide, KH_PATH_SCALE * pen->margin);
        }
    out->side = 2 * pen->half + 1;
    reduce(out->line, pen, line);
    reduce(out->mask, pen, mask);
    out->core_count = 0;
    for (int i = 0; i < out->side * out->side; i++)
        if (out->mask[i] == 255) {
            out->core[out->core_count][0] = (int8_t)(i / out->side - pen->half);
            out->core[out->core_count++][1] = (int8_t)(i % out->side - pen->half);
        }
}

void kh_path_disk(float *image, int size, int y, int x, double radius)
{
    enum { TAPS = 2 * KH_PATH_SCALE * LOBES };
    double weight[TAPS], sum = 0, limit = radius * KH_PATH_SCALE;
    for (int i = 0; i < TAPS; i++) sum += weight[i] = lanczos((i + 0.5 - TAPS / 2) / KH_PATH_SCALE);
    int reach = (int)ceil(radius) + LOBES;
    for (int py = y - reach; py <= y + reach; py++)
        for (int px = x - reach; px <= x + reach; px++) {
            if (py < 0 || px < 0 || py >= size || px >= size) continue;
            double value = 0;
            for (int i = 0; i < TAPS; i++)
                for (int j = 0; j < TAPS; j++) {
                    double dy = KH_PATH_SCALE * (py - y) + i + KH_PATH_SCALE / 2 - TAPS / 2;
                    double dx = KH_PATH_SCALE * (px - x) + j + KH_PATH_SCALE / 2 - TAPS / 2;
                    if (dy * dy + dx * dx <= limit * limit) value += weight[i] * weight[j];
                }
            float *at = &image[py * size + px];
            float bright = (float)level(value / (sum * sum)) / 255.0f;
            if (bright > *at) *at = bright;
        }
}

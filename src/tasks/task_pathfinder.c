/* Pathfinder: are the two marked ends those of one dashed curve? (Linsley et al., "Learning long-range
 * spatial dependencies with horizontal gated recurrent units", 2018; parameters of Long Range Arena.)
 *
 * Two target snakes grow together, paddle by paddle in turn. Then distractor snakes are added. A marker
 * stands at the start of a random target, another at the end of the same one (label 1) or of the other
 * (label 0). Row-major pixels, 0 .. 255, are the tokens.
 *
 *          tail--head                 a paddle of `length`, drawn backwards from its head
 *       pivot                         `margin` before the tail
 *          .    pivot'                length + 2 margin further on
 *                    o o o            next heads: pixels at length + margin around pivot'; weight
 *                                     (1 - what is occupied within the margin) * cos^2(turn * continuity)
 *
 * A paddle is taken if it and what is occupied stay below 1.8 together (of 1 each); its own area counts as
 * occupied only after the next one was placed, which has to touch it. Two retries for a paddle, then
 * the pair begins anew (`drafts`); a distractor is tried five times and may be missing.
 *
 * Angles are uniform whole degrees. Where the original and its description differ, this follows the
 * original: distractors have the contrast of snakes, targets that times the paddles'. Unlike there, the
 * last paddles of both targets count as occupied for distractors. Pictures are stretched to 0 .. 255.
 *
 * Black is id 0, which the published model masks as if it were padding; there is no padding here (pad -1).
 *
 * Sines and cosines are those of task_math.h, the rest are whole numbers and single products, so a picture
 * is the same on every machine. */
#include "tasks/task_impl.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "tasks/path_draw.h"
#include "tasks/task_math.h"

#include <math.h>
#include <string.h>

enum { SIZE, LENGTH };
enum { RETRIES = 2, DISTRACTOR_RETRIES = 4, MOST_DRAFTS = 200000, OCCUPIED = 76, CROSSED = 459 };

static const kh_task_param params[] = {{"size", "32", KH_TASK_WHOLE, 32, 256},
                                       {"length", "14", KH_TASK_WHOLE, 3, 24},
                                       {NULL, NULL, KH_TASK_WHOLE, 0, 0}};

/* The parameters of each size; thickness is counted at twice the resolution. */
static const struct geometry {
    int size, padding, margins[2], seed_distance, paddle, width, distractor_paddles;
    double radius, continuity;
    float snake, paddles; /* contrasts */
} geometries[] = {
    {32, 1, {1, 1}, 7, 2, 1, 20, 1.5, 1.0, 2.0f, 0.75f},
    {64, 1, {1, 1}, 12, 5, 2, 22, 2.5, 1.8, 0.8f, 1.0f},
    {128, 1, {2, 3}, 20, 5, 3, 35, 3, 1.8, 0.9f, 1.0f},
    {256, 22, {3, 3}, 27, 5, 4, 30, 5, 1.8, 1.0f, 1.0f},
};

typedef struct board {
    const struct geometry *geometry;
    kh_path_pen pens[2]; /* for each margin; the second only where there are two */
} board;

typedef struct snake {
    int pivot[2], tip[2]; /* [y, x] */
    double angle;         /* of the last paddle */
    int at[2];            /* where the last paddle's stamp begins */
    const kh_path_stamp *last;
} snake;

/* An example's scratch. */
typedef struct canvas {
    const struct geometry *geometry;
    const kh_path_pen *pen;
    kh_task_draws *draws;
    int size, distractors;
    snake pair[2];
    int start[2][2], end[2][2]; /* of the targets: [y, x] */
    int marked[2];              /* which start and which end have a marker */
    int32_t *places;            /* [size * size] */
    float *image, *kept_image;  /* [size][size] */
    uint8_t *mask, *kept_mask;  /* [size][size] how much of a pixel is occupied */
} canvas;

static kh_status open(kh_task *task)
{
    const struct geometry *g = geometries;
    while (g < geometries + 4 && g->size != (int)task->value[SIZE]) g++;
    if (g == geometries + 4)
        KH_TASK_REFUSE(task, "size must be 32, 64, 128 or 256, found %.0f", task->value[SIZE]);
    board *own = NULL;
    KH_TRY(kh_new(&own, 1, sizeof *own, "a task"));
    own->geometry = g;
    for (int i = 0; i < 2; i++) kh_path_pen_init(&own->pens[i], g->paddle, g->width, g->margins[i]);
    size_t pixels = (size_t)g->size * (size_t)g->size;
    task->own = own;
    task->scratch_size = sizeof(canvas) + pixels * (sizeof(int32_t) + 2 * sizeof(float) + 2);
    task->info.vocabulary = 256;
    task->info.classes = 2;
    task->info.longest = pixels;
    return KH_OK;
}

/* ---- the canvas ---- */

static canvas *begin(const kh_task *task, kh_task_draws *draws, kh_task_example *out)
{
    const board *own = task->own;
    canvas *c = out->scratch;
    size_t pixels = task->info.longest;
    c->geometry = own->geometry;
    c->size = own->geometry->size;
    c->draws = draws;
    c->pen =
        &own->pens[kh_task_below(draws, 1 + (c->geometry->margins[1] != c->geometry->margins[0]))];
    c->places = (int32_t *)(void *)(c + 1);
    c->image = (float *)(void *)(c->places + pixels);
    c->kept_image = c->image + pixels;
    c->mask = (uint8_t *)(c->kept_image + pixels);
    c->kept_mask = c->mask + pixels;
    return c;
}

static void clear(canvas *c)
{
    int size = c->size, padding = c->geometry->padding;
    memset(c->image, 0, (size_t)size * (size_t)size * sizeof *c->image);
    memset(c->mask, 0, (size_t)size * (size_t)size);
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++)
            if (y < padding || x < padding || y >= size - padding || x >= size - padding)
                c->mask[y * size + x] = 255;
}

static void keep(canvas *c, int back)
{
    size_t pixels = (size_t)c->size * (size_t)c->size;
    memcpy(back ? c->image : c->kept_image, back ? c->kept_image : c->image,
           pixels * sizeof *c->image);
    memcpy(back ? c->mask : c->kept_mask, back ? c->kept_mask : c->mask, pixels);
}

static int inside(const canvas *c, int y, int x)
{
    return y >= 0 && x >= 0 && y < c->size && x < c->size;
}

static void paint(canvas *c, const kh_path_stamp *stamp, const int at[2], float contrast)
{
    for (int i = 0; i < stamp->side; i++)
        for (int j = 0; j < stamp->side; j++) {
            int y = at[0] + i - stamp->side / 2, x = at[1] + j - stamp->side / 2;
            if (!inside(c, y, x)) continue;
            float value = (float)stamp->line[i * stamp->side + j] / 255.0f * contrast;
            float *pixel = &c->image[y * c->size + x];
            if (value > *pixel) *pixel = value;
        }
}

static void occupy(canvas *c, const kh_path_stamp *stamp, const int at[2])
{
    for (int i = 0; i < stamp->side; i++)
        for (int j = 0; j < stamp->side; j++) {
            int y = at[0] + i - stamp->side / 2, x = at[1] + j - stamp->side / 2;
            uint8_t value = stamp->mask[i * stamp->side + j];
            if (inside(c, y, x) && value > c->mask[y * c->size + x])
                c->mask[y * c->size + x] = value;
        }
}

static int crosses(const canvas *c, const kh_path_stamp *stamp, const int at[2])
{
    for (int i = 0; i < stamp->side; i++)
        for (int j = 0; j < stamp->side; j++) {
            int y = at[0] + i - stamp->side / 2, x = at[1] + j - stamp->side / 2;
            if (inside(c, y, x) &&
                c->mask[y * c->size + x] + stamp->mask[i * stamp->side + j] >= CROSSED)
                return 1;
        }
    return 0;
}

/* ---- growing ---- */

/* Whole degrees; also an index of kh_path_pen.first. */
static int random_degrees(canvas *c)
{
    return (int)kh_task_below(c->draws, KH_PATH_ANGLES);
}

static double radians(int degrees)
{
    return (degrees - 180) * KH_TASK_PI / 180;
}

static void move(int out[2], const int from[2], double angle, double distance)
{
    out[0] = (int)ceil(from[0] + distance * kh_task_sin(angle));
    out[1] = (int)ceil(from[1] + distance * kh_task_cos(angle));
}

/* Begins at `tail` if its head and its pivot are inside. */
static int place_first(canvas *c, snake *s, const int tail[2], int degrees)
{
    int head[2];
    double angle = radians(degrees);
    move(head, tail, angle, c->pen->length);
    move(s->pivot, head, angle, -(c->pen->length + c->pen->margin));
    if (!inside(c, head[0], head[1]) || !inside(c, s->pivot[0], s->pivot[1])) return 0;
    s->angle = angle;
    s->last = &c->pen->first[degrees];
    memcpy(s->at, tail, sizeof s->at);
    memcpy(s->tip, head, sizeof s->tip);
    return 1;
}

/* Whether the core of a paddle at (y, x) is free, and at least `edge` from every edge. */
static int fits(const canvas *c, const kh_path_stamp *stamp, int y, int x, int edge)
{
    for (int i = 0; i < stamp->core_count; i++) {
        int py = y + stamp->core[i][0], px = x + stamp->core[i][1];
        if (!inside(c, py, px)) continue;
        if (py < edge || px < edge || py >= c->size - edge || px >= c->size - edge) return 0;
        if (c->mask[py * c->size + px] > OCCUPIED) return 0;
    }
    return 1;
}

/* A first paddle anywhere free; `fewest` free pixels have to be left. */
static int seed(canvas *c, snake *s, int edge, size_t fewest)
{
    size_t pixels = (size_t)c->size * (size_t)c->size, left = 0;
    for (size_t i = 0; i < pixels; i++) left += c->mask[i] <= OCCUPIED;
    if (left < fewest) return 0;
    for (int trial = 0; trial <= RETRIES; trial++) {
        int degrees = random_degrees(c);
        size_t count = 0;
        for (int y = 0; y < c->size; y++)
            for (int x = 0; x < c->size; x++)
                if (fits(c, &c->pen->first[degrees], y, x, edge))
                    c->places[count++] = y * c->size + x;
        if (count == 0) return 0;
        int place = c->places[kh_task_below(c->draws, count)];
        if (place_first(c, s, (int[2]){place / c->size, place % c->size}, degrees)) return 1;
    }
    return 0;
}

/* The second target: a first paddle at a distance from the first target's. */
static int seed_beside(canvas *c, snake *s, const snake *other)
{
    for (int trial = 0; trial <= RETRIES; trial++) {
        int degrees = random_degrees(c);
        double towards = radians(random_degrees(c));
        int tail[2] = {
            (int)floor(other->at[0] + c->geometry->seed_distance * kh_task_sin(towards) + 0.5),
            (int)floor(other->at[1] + c->geometry->seed_distance * kh_task_cos(towards) + 0.5)};
        if (place_first(c, s, tail, degrees)) return 1;
    }
    return 0;
}

/* How much is occupied within the margin of a pixel. */
static int occupied_near(const canvas *c, int y, int x)
{
    int most = 0, reach = c->pen->margin;
    for (int dy = -reach; dy <= reach; dy++)
        for (int dx = -reach; dx <= reach; dx++) {
            if (dy * dy + dx * dx > reach * reach || !inside(c, y + dy, x + dx)) continue;
            int value = c->mask[(y + dy) * c->size + x + dx];
            if (value > most) most = value;
        }
    return most;
}

static double weight_of(const canvas *c, const kh_path_around *to, const int pivot[2], double angle)
{
    int y = pivot[0] + to->dy, x = pivot[1] + to->dx;
    if (!inside(c, y, x)) return 0;
    double turn = fabs(to->angle - angle);
    if (turn > KH_TASK_PI) turn = 2 * KH_TASK_PI - turn;
    turn *= c->geometry->continuity;
    if (turn >= KH_TASK_PI / 2) return 0;
    double cosine = kh_task_cos(turn);
    return (1 - occupied_near(c, y, x) / 255.0) * cosine * cosine;
}

static int extend(canvas *c, snake *s, float contrast)
{
    const kh_path_pen *pen = c->pen;
    double weight[KH_PATH_MOST_AROUND], total = 0;
    int pivot[2];
    move(pivot, s->pivot, s->angle, pen->length + 2 * pen->margin);
    for (int i = 0; i < pen->around_count; i++)
        total += weight[i] = weight_of(c, &pen->around[i], pivot, s->angle);
    if (total < 1e-4) return 0;
    for (int trial = 0; trial <= RETRIES; trial++) {
        double at = kh_task_unit(c->draws) * total;
        int chosen = -1;
        for (int i = 0; i < pen->around_count && at >= 0; i++) {
            if (weight[i] <= 0) continue;
            chosen = i;
            at -= weight[i];
        }
        const kh_path_around *to = &pen->around[chosen];
        int head[2] = {pivot[0] + to->dy, pivot[1] + to->dx};
        if (crosses(c, &to->back, head)) continue;
        paint(c, &to->back, head, contrast);
        occupy(c, s->last, s->at);
        *s = (snake){.pivot = {pivot[0], pivot[1]},
                     .tip = {head[0], head[1]},
                     .angle = to->angle,
                     .at = {head[0], head[1]},
                     .last = &to->back};
        return 1;
    }
    return 0;
}

/* ---- a picture ---- */

static int draw_targets(canvas *c, int length)
{
    float contrast = c->geometry->snake * c->geometry->paddles;
    clear(c);
    if (!seed(c, &c->pair[0], 2 * c->geometry->seed_distance, 1)) return 0;
    if (!seed_beside(c, &c->pair[1], &c->pair[0])) return 0;
    for (int i = 0; i < 2; i++) {
        memcpy(c->start[i], c->pair[i].at, sizeof c->start[i]);
        paint(c, c->pair[i].last, c->pair[i].at, contrast);
    }
    for (int paddle = 1; paddle < length; paddle++)
        for (int i = 0; i < 2; i++)
            if (!extend(c, &c->pair[i], contrast)) return 0;
    for (int i = 0; i < 2; i++) {
        memcpy(c->end[i], c->pair[i].tip, sizeof c->end[i]);
        occupy(c, c->pair[i].last, c->pair[i].at);
    }
    return 1;
}

static int draw_distractor(canvas *c, int length)
{
    snake s;
    size_t fewest = (size_t)(c->size * c->size + 99) / 100;
    if (!seed(c, &s, 1, fewest)) return 0;
    paint(c, s.last, s.at, c->geometry->snake);
    for (int paddle = 1; paddle < length; paddle++)
        if (!extend(c, &s, c->geometry->snake)) return 0;
    occupy(c, s.last, s.at);
    return 1;
}

static void draw_distractors(canvas *c, int length)
{
    int paddles = length / 3, count = c->geometry->distractor_paddles / paddles;
    c->distractors = 0;
    for (int i = 0; i < count; i++) {
        keep(c, 0);
        for (int trial = 0; trial <= DISTRACTOR_RETRIES; trial++) {
            if (draw_distractor(c, paddles)) {
                c->distractors++;
                break;
            }
            keep(c, 1);
        }
    }
}

static void finish(const canvas *c, kh_task_example *out)
{
    size_t pixels = (size_t)c->size * (size_t)c->size;
    float most = 0;
    for (size_t i = 0; i < pixels; i++)
        if (c->image[i] > most) most = c->image[i];
    for (size_t i = 0; i < pixels; i++)
        out->tokens[i] = (int32_t)(c->image[i] / most * 255.0f + 0.5f);
    out->n = pixels;
}

static kh_status make(const kh_task *task, kh_task_split split, kh_task_draws *draws,
                      kh_task_example *out)
{
    (void)split;
    canvas *c = begin(task, draws, out);
    int length = (int)task->value[LENGTH];
    out->label = (int)kh_task_below(draws, 2);
    while (!draw_targets(c, length))
        if (out->drafts++ == MOST_DRAFTS)
            KH_FAIL(KH_ERR_CHECK, "task '%s': none of %d pairs of curves grew to length %d",
                    task->setting.data, MOST_DRAFTS, length);
    draw_distractors(c, length);
    c->marked[0] = (int)kh_task_below(draws, 2);
    c->marked[1] = out->label ? c->marked[0] : 1 - c->marked[0];
    const int *from = c->start[c->marked[0]], *to = c->end[c->marked[1]];
    kh_path_disk(c->image, c->size, from[0], from[1], c->geometry->radius);
    kh_path_disk(c->image, c->size, to[0], to[1], c->geometry->radius);
    finish(c, out);
    return KH_OK;
}

void kh_task_pathfinder_tips(const kh_task_example *example, int ends[2][2][2], int marked[2])
{
    const canvas *c = example->scratch;
    for (int i = 0; i < 2; i++) {
        memcpy(ends[i][0], c->start[i], sizeof ends[i][0]);
        memcpy(ends[i][1], c->end[i], sizeof ends[i][1]);
        marked[i] = c->marked[i];
    }
}

/* Two characters a pixel, as letters are twice as high as wide. */
static kh_status text(const kh_task *task, const kh_task_example *example, kh_buf *out)
{
    static const char shades[] = " .:-=+*#%@";
    size_t size = kh_task_count_of(task, SIZE);
    for (size_t y = 0; y < size; y++) {
        size_t end = size;
        while (end > 0 && example->tokens[y * size + end - 1] * 10 / 256 == 0) end--;
        for (size_t x = 0; x < end; x++) {
            char shade = shades[example->tokens[y * size + x] * 10 / 256];
            KH_TRY(kh_buf_add(out, (char[2]){shade, shade}, 2));
        }
        if (y + 1 < size) KH_TRY(kh_buf_text(out, "\n"));
    }
    return KH_OK;
}

/* ---- statistics and baselines ---- */

static double marker_distance(const kh_task_example *example)
{
    const canvas *c = example->scratch;
    double dy = c->start[c->marked[0]][0] - c->end[c->marked[1]][0];
    double dx = c->start[c->marked[0]][1] - c->end[c->marked[1]][1];
    return sqrt(dy * dy + dx * dx);
}

static double brightness(const kh_task_example *example)
{
    int64_t sum = 0;
    for (size_t t = 0; t < example->n; t++) sum += example->tokens[t];
    return (double)sum / (255.0 * (double)example->n);
}

static const char *const numbers[] = {"distractors", "pixels between the markers",
                                      "mean brightness", NULL};

static void measure(const kh_task *task, const kh_task_example *example, double *sums)
{
    (void)task;
    sums[0] += ((const canvas *)example->scratch)->distractors;
    sums[1] += marker_distance(example);
    sums[2] += brightness(example);
}

enum { BRIGHTNESS_CELLS = 64 };

static void distance_shape(const kh_task *task, size_t *cells, size_t *votes)
{
    *cells = 2 * kh_task_count_of(task, SIZE);
    *votes = 2;
}

static void distance_see(const kh_task *task, const kh_task_example *example, size_t row,
                         size_t *cell, size_t *vote)
{
    (void)task;
    (void)row;
    *cell = (size_t)marker_distance(example);
    *vote = (size_t)example->label;
}

static void brightness_shape(const kh_task *task, size_t *cells, size_t *votes)
{
    (void)task;
    *cells = BRIGHTNESS_CELLS;
    *votes = 2;
}

static void brightness_see(const kh_task *task, const kh_task_example *example, size_t row,
                           size_t *cell, size_t *vote)
{
    (void)task;
    (void)row;
    size_t at = (size_t)(brightness(example) * 4 * BRIGHTNESS_CELLS);
    *cell = at < BRIGHTNESS_CELLS ? at : BRIGHTNESS_CELLS - 1;
    *vote = (size_t)example->label;
}

static const kh_task_shallow shallow[] = {
    {"the commonest label", kh_task_majority_shape, kh_task_majority_see},
    {"the mean brightness", brightness_shape, brightness_see},
    {"the distance between the markers", distance_shape, distance_see},
    {NULL, NULL, NULL}};

const kh_task_family kh_task_pathfinder = {
    .kind = {"pathfinder", "whether two marked ends belong to one dashed curve; pixels",
             "size=32,length=14"},
    .params = params,
    .open = open,
    .make = make,
    .text = text,
    .numbers = numbers,
    .measure = measure,
    .shallow = shallow,
};

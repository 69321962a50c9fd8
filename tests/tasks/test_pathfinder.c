/* Pathfinder: the pictures, judged by somebody who only sees pixels.
 *
 * The follower starts at the marked start and tries every chain of paddles whose pixels are all at least as
 * bright as such a paddle makes them: every first direction, then every next head that turns by less than a
 * right angle. It knows how paddles look and join, and nothing of how the curves were grown. The end of the
 * curve has to be among the ends of such chains, in every picture; the other curve's end is there only where
 * chains can be mistaken for each other, in a share of the pictures that is measured. So a picture decides its
 * label, and a generator that lost a paddle or marked another end fails. */
#include <keyhole/task.h>

#include "tasks/path_draw.h"
#include "tasks/task_impl.h"
#include "tasks/task_math.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST_SIZE = 64 };

static kh_task *open_task(const char *setting)
{
    kh_task *task = NULL;
    if (kh_task_open(&task, setting) != KH_OK) fail_msg("%s: %s", setting, kh_last_error());
    return task;
}

/* What the follower sees. */
typedef struct sight {
    const int32_t *pixels; /* [size][size] */
    int size, length;      /* paddles of a curve */
    double level;          /* the pixel that brightness 1 became, times the curve's contrast */
    double turn;           /* the largest, in radians */
    kh_path_pen pen;
    /* [step][pivot][next]: chains through here were tried */
    unsigned char tried[16][MOST_SIZE * MOST_SIZE][KH_PATH_MOST_AROUND];
    unsigned char ends[MOST_SIZE * MOST_SIZE]; /* where chains of full length end */
} sight;

static int is_there(const sight *s, const kh_path_stamp *stamp, int y, int x)
{
    int half = stamp->side / 2;
    for (int i = 0; i < stamp->side * stamp->side; i++) {
        int py = y + i / stamp->side - half, px = x + i % stamp->side - half;
        if (py < 0 || px < 0 || py >= s->size || px >= s->size) continue;
        if (s->pixels[py * s->size + px] < stamp->line[i] / 255.0 * s->level - 1.5) return 0;
    }
    return 1;
}

static void follow(sight *s, int step, int y, int x, double angle)
{
    int reach = s->pen.length + 2 * s->pen.margin;
    y = (int)ceil(y + reach * kh_task_sin(angle));
    x = (int)ceil(x + reach * kh_task_cos(angle));
    if (y < 0 || x < 0 || y >= s->size || x >= s->size) return;
    for (int i = 0; i < s->pen.around_count; i++) {
        const kh_path_around *to = &s->pen.around[i];
        int hy = y + to->dy, hx = x + to->dx;
        double turn = fabs(remainder(to->angle - angle, 2 * KH_TASK_PI));
        if (hy < 0 || hx < 0 || hy >= s->size || hx >= s->size || turn >= s->turn) continue;
        if (s->tried[step][y * s->size + x][i]++) continue;
        if (!is_there(s, &to->back, hy, hx)) continue;
        if (step + 1 == s->length)
            s->ends[hy * s->size + hx] = 1;
        else
            follow(s, step + 1, y, x, to->angle);
    }
}

static void look(sight *s, const int start[2])
{
    memset(s->tried, 0, sizeof s->tried);
    memset(s->ends, 0, sizeof s->ends);
    for (int degrees = 0; degrees < KH_PATH_ANGLES; degrees++) {
        double angle = (degrees - 180) * KH_TASK_PI / 180, sine = kh_task_sin(angle);
        double cosine = kh_task_cos(angle);
        int length = s->pen.length, back = length + s->pen.margin;
        if (!is_there(s, &s->pen.first[degrees], start[0], start[1])) continue;
        int y = (int)ceil((int)ceil(start[0] + length * sine) - back * sine);
        int x = (int)ceil((int)ceil(start[1] + length * cosine) - back * cosine);
        follow(s, 1, y, x, angle);
    }
}

static void curves_lead_to_their_ends(void **state)
{
    (void)state;
    static const struct {
        const char *setting;
        int size, length, count, paddle, width;
        double contrast, continuity, most_mistaken;
    } cases[] = {{"pathfinder", 32, 14, 300, 2, 1, 1.5, 1.0, 0.05},
                 {"pathfinder:length=6", 32, 6, 300, 2, 1, 1.5, 1.0, 0.05},
                 {"pathfinder:size=64", 64, 14, 20, 5, 2, 0.8, 1.8, 0.1}};
    static sight s;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        kh_task *task = open_task(cases[c].setting);
        kh_task_example e;
        int found = 0, mistaken = 0;
        s.size = cases[c].size;
        s.length = cases[c].length;
        s.turn = KH_TASK_PI / 2 / cases[c].continuity;
        kh_path_pen_init(&s.pen, cases[c].paddle, cases[c].width, 1);
        assert_int_equal(kh_task_example_open(&e, task), KH_OK);
        for (int i = 0; i < cases[c].count; i++) {
            int ends[2][2][2], marked[2];
            assert_int_equal(kh_task_generate(task, 6, KH_TASK_TRAIN, (uint64_t)i, &e), KH_OK);
            kh_task_pathfinder_tips(&e, ends, marked);
            const int *start = ends[marked[0]][0], *end = ends[marked[0]][1];
            const int *other = ends[1 - marked[0]][1], *sign = ends[marked[1]][1];
            int a = e.tokens[start[0] * s.size + start[1]];
            int b = e.tokens[sign[0] * s.size + sign[1]];
            s.pixels = e.tokens;
            s.level = cases[c].contrast * (a < b ? a : b); /* the darker one has no line over it */
            look(&s, start);
            found += s.ends[end[0] * s.size + end[1]];
            mistaken += s.ends[other[0] * s.size + other[1]];
        }
        print_message("%s: of %d the follower finds %d ends and %d others\n", cases[c].setting,
                      cases[c].count, found, mistaken);
        assert_true(found >= 0.99 * cases[c].count);
        assert_true(mistaken <= cases[c].most_mistaken * cases[c].count);
        kh_task_example_close(&e);
        kh_task_close(task);
    }
}

/* Labels are balanced and say what is marked; both markers are bright disks on tips of targets. */
static void markers_sit_on_tips(void **state)
{
    (void)state;
    enum { N = 600 };
    kh_task *task = open_task("pathfinder");
    assert_int_equal(kh_task_get_info(task)->vocabulary, 256);
    assert_int_equal(kh_task_get_info(task)->classes, 2);
    assert_int_equal(kh_task_get_info(task)->pad, -1);
    assert_int_equal(kh_task_get_info(task)->longest, 1024);
    kh_task_example e;
    assert_int_equal(kh_task_example_open(&e, task), KH_OK);
    int ones = 0, firsts = 0;
    for (uint64_t example = 0; example < N; example++) {
        int ends[2][2][2], marked[2], most = 0;
        assert_int_equal(kh_task_generate(task, 2, KH_TASK_TRAIN, example, &e), KH_OK);
        assert_int_equal(e.n, 1024);
        for (size_t t = 0; t < e.n; t++) {
            assert_in_range(e.tokens[t], 0, 255);
            if (e.tokens[t] > most) most = e.tokens[t];
        }
        assert_int_equal(most, 255);
        kh_task_pathfinder_tips(&e, ends, marked);
        assert_int_equal(e.label, marked[0] == marked[1]);
        ones += e.label;
        firsts += marked[0] == 0;
        for (int m = 0; m < 2; m++) {
            const int *tip = ends[marked[m]][m];
            for (int i = 0; i < 5; i++) { /* the pixel and its four neighbours */
                static const int plus[5][2] = {{0, 0}, {0, 1}, {1, 0}, {0, -1}, {-1, 0}};
                assert_true(e.tokens[(tip[0] + plus[i][0]) * 32 + tip[1] + plus[i][1]] > 90);
            }
        }
        double apart = hypot(ends[0][0][0] - ends[1][0][0], ends[0][0][1] - ends[1][0][1]);
        assert_true(fabs(apart - 7) <= 0.75);
    }
    assert_true(fabs(ones - N / 2.0) < 4 * sqrt(N) / 2);
    assert_true(fabs(firsts - N / 2.0) < 4 * sqrt(N) / 2);
    kh_task_example_close(&e);
    kh_task_close(task);
}

static void every_size_and_length_grows(void **state)
{
    (void)state;
    static const char *const settings[] = {"pathfinder:length=6", "pathfinder:length=9",
                                           "pathfinder:size=64,length=9", "pathfinder:size=128",
                                           "pathfinder:size=256"};
    for (size_t s = 0; s < sizeof settings / sizeof *settings; s++) {
        kh_task *task = open_task(settings[s]);
        kh_task_example e;
        assert_int_equal(kh_task_example_open(&e, task), KH_OK);
        for (uint64_t i = 0; i < 3; i++) {
            if (kh_task_generate(task, 2, KH_TASK_TEST, i, &e) != KH_OK)
                fail_msg("%s: %s", settings[s], kh_last_error());
            assert_int_equal(e.n, kh_task_get_info(task)->longest);
        }
        kh_task_example_close(&e);
        kh_task_close(task);
    }
    kh_task *task = NULL;
    assert_int_equal(kh_task_open(&task, "pathfinder:size=40"), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "size must be 32, 64, 128 or 256, found 40"));
}

/* Nothing that does not look at the curves solves it. */
static void shallow_predictors_are_near_chance(void **state)
{
    (void)state;
    kh_task *task = open_task("pathfinder");
    kh_task_number b[KH_TASK_MOST_NUMBERS];
    kh_task_stats stats;
    size_t count = 0;
    assert_int_equal(kh_task_baselines(task, 1, 3000, 1000, b, &count), KH_OK);
    assert_int_equal(count, 3);
    assert_true(fabs(b[0].value - 0.5) < 0.07);
    assert_true(fabs(b[1].value - 0.5) < 0.07);
    assert_true(b[2].value < 0.8);
    assert_int_equal(kh_task_measure(task, 1, KH_TASK_TRAIN, 1000, &stats), KH_OK);
    assert_int_equal(stats.duplicates, 0);
    assert_true(stats.acceptance > 0.0005);
    assert_true(stats.numbers[0].value > 1 && stats.numbers[0].value <= 5);
    kh_task_close(task);
}

static void sines_are_sines(void **state)
{
    (void)state;
    for (double x = -12.5; x < 12.5; x += 0.013) {
        assert_true(fabs(kh_task_sin(x) - sin(x)) < 1e-13);
        assert_true(fabs(kh_task_cos(x) - cos(x)) < 1e-13);
    }
    for (int y = -12; y <= 12; y++)
        for (int x = -12; x <= 12; x++)
            if (x || y) assert_true(fabs(kh_task_angle(y, x) - atan2(y, x)) < 1e-14);
}

/* A paddle lies on its line, occupies its surroundings, and has its length in brightness. */
static void paddles_have_their_shape(void **state)
{
    (void)state;
    static kh_path_pen pen;
    kh_path_stamp stamp;
    kh_path_pen_init(&pen, 5, 3, 2);
    assert_in_range(pen.around_count, 20, KH_PATH_MOST_AROUND);
    for (int i = 0; i < pen.around_count; i++)
        assert_true(fabs(hypot(pen.around[i].dy, pen.around[i].dx) - 7) < 1.5);
    for (double angle = -3; angle < 3; angle += 0.37) {
        kh_path_draw(&stamp, &pen, sin(angle), cos(angle));
        int half = stamp.side / 2;
        double sum = 0;
        assert_int_equal(stamp.side, 19);
        assert_in_range(stamp.core_count, 5, 60);
        for (int y = 0; y < stamp.side; y++)
            for (int x = 0; x < stamp.side; x++) {
                double along = sin(angle) * (y - half) + cos(angle) * (x - half);
                double across = cos(angle) * (y - half) - sin(angle) * (x - half);
                int line = stamp.line[y * stamp.side + x], mask = stamp.mask[y * stamp.side + x];
                int far = along < -1.8 || along > 6.8 || fabs(across) > 2.6;
                if (far) assert_true(line < 40);
                if (along > 0.7 && along < 4.3 && fabs(across) < 0.3) assert_true(line > 150);
                if (along > 0 && along < 5 && fabs(across) < 1.3) assert_true(mask > 230);
                if (along < -4.5 || along > 9.5 || fabs(across) > 5.3) assert_true(mask < 25);
                sum += line / 255.0;
            }
        assert_true(fabs(sum - 5 * 1.5) < 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sines_are_sines),
        cmocka_unit_test(paddles_have_their_shape),
        cmocka_unit_test(markers_sit_on_tips),
        cmocka_unit_test(curves_lead_to_their_ends),
        cmocka_unit_test(every_size_and_length_grows),
        cmocka_unit_test(shallow_predictors_are_near_chance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

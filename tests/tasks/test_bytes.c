/* Byte-text retrieval: windows are found again in the files that they came from.
 *
 * The files of the test hold random bytes, so that a window of 16 occurs once; a search says which file and
 * which place it is from, and so whether the label, the split and the distance of the windows are right. */
#include <keyhole/task.h>

#include "base/alloc.h"
#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { FILES = 3, SIZE = 4000, WINDOW = 16 };

static char folder[64], path[FILES][96], short_path[96];
static unsigned char bytes[FILES][SIZE];

static void write_file(const char *name, const void *data, size_t size)
{
    FILE *file = fopen(name, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/keyhole-bytes-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    for (int f = 0; f < FILES; f++) {
        for (size_t i = 0; i < SIZE; i++)
            bytes[f][i] = (unsigned char)kh_rng_bits((kh_rng_key){1, (uint64_t)f}, i);
        snprintf(path[f], sizeof path[f], "%s/%c.txt", folder, 'a' + f);
        write_file(path[f], bytes[f], SIZE);
    }
    snprintf(short_path, sizeof short_path, "%s/short.txt", folder);
    write_file(short_path, bytes[0], 20 * WINDOW - 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int f = 0; f < FILES; f++) unlink(path[f]);
    unlink(short_path);
    return rmdir(folder);
}

static kh_task *open_task(const char *setting)
{
    kh_task *task = NULL;
    if (kh_task_open(&task, setting) != KH_OK) fail_msg("%s: %s", setting, kh_last_error());
    return task;
}

/* The file that a window is from; *at receives the place. */
static int find_window(const int32_t *tokens, size_t *at)
{
    unsigned char window[WINDOW];
    for (size_t i = 0; i < WINDOW; i++) {
        assert_in_range(tokens[i], 1, 256);
        window[i] = (unsigned char)(tokens[i] - 1);
    }
    for (int f = 0; f < FILES; f++) {
        const unsigned char *found = memmem(bytes[f], SIZE, window, WINDOW);
        if (!found) continue;
        *at = (size_t)(found - bytes[f]);
        return f;
    }
    fail_msg("a window is in none of the files");
    return -1;
}

static void windows_are_where_they_should_be(void **state)
{
    (void)state;
    static const size_t borders[] = {0, SIZE / 10 * 8, SIZE / 10 * 9, SIZE};
    char setting[256];
    snprintf(setting, sizeof setting, "bytes:files=%s,length=%d", folder, WINDOW);
    kh_task *task = open_task(setting);
    const kh_task_info *info = kh_task_get_info(task);
    assert_int_equal(info->vocabulary, 257);
    assert_int_equal(info->classes, 2);
    assert_int_equal(info->pair, 1);
    assert_int_equal(info->longest, 2 * WINDOW);
    kh_task_example e;
    assert_int_equal(kh_task_example_open(&e, task), KH_OK);
    for (int split = 0; split < 3; split++) {
        size_t same = 0, met[FILES] = {0}, first[2][FILES] = {{0}}, later = 0;
        enum { N = 900 };
        for (uint64_t i = 0; i < N; i++) {
            assert_int_equal(kh_task_generate(task, 4, (kh_task_split)split, i, &e), KH_OK);
            assert_int_equal(e.n, 2 * WINDOW);
            assert_int_equal(e.second, WINDOW);
            size_t at[2];
            int file[2];
            for (int w = 0; w < 2; w++) {
                file[w] = find_window(e.tokens + w * WINDOW, &at[w]);
                assert_true(at[w] >= borders[split] && at[w] + WINDOW <= borders[split + 1]);
                met[file[w]]++;
            }
            assert_int_equal(e.label, file[0] == file[1]);
            first[e.label][file[0]]++;
            same += e.label == 1;
            if (e.label) assert_true(at[0] + WINDOW <= at[1] || at[1] + WINDOW <= at[0]);
            later += e.label && at[1] > at[0];
        }
        assert_true(fabs((double)same - N / 2.0) < 4 * sqrt(N) / 2);
        assert_true(fabs((double)later - (double)same / 2) < 4 * sqrt((double)same) / 2);
        for (int f = 0; f < FILES; f++)
            for (int label = 0; label < 2; label++) assert_true(first[label][f] > N / 2 / 3 - 50);
        for (int f = 0; f < FILES; f++) assert_true(met[f] > 2 * N / 3 - 100);
    }
    kh_task_example_close(&e);
    kh_task_close(task);
}

/* With files that just hold two windows in a tenth, there is one place for the pair. */
static void the_smallest_file_is_enough(void **state)
{
    (void)state;
    char setting[256], small[2][96];
    for (int f = 0; f < 2; f++) {
        snprintf(small[f], sizeof small[f], "%s/small%d", folder, f);
        write_file(small[f], bytes[f], 20 * WINDOW);
    }
    snprintf(setting, sizeof setting, "bytes:length=%d,files=%s+%s", WINDOW, small[0], small[1]);
    kh_task *task = open_task(setting);
    kh_task_example e;
    assert_int_equal(kh_task_example_open(&e, task), KH_OK);
    size_t same = 0;
    for (uint64_t i = 0; i < 50; i++) {
        size_t at[2];
        assert_int_equal(kh_task_generate(task, 4, KH_TASK_TEST, i, &e), KH_OK);
        for (int w = 0; w < 2; w++) find_window(e.tokens + w * WINDOW, &at[w]);
        if (!e.label) continue;
        assert_int_equal(at[0] < at[1] ? at[0] : at[1], 18 * WINDOW);
        assert_int_equal(at[0] < at[1] ? at[1] : at[0], 19 * WINDOW);
        same++;
    }
    assert_true(same > 5);
    kh_task_example_close(&e);
    kh_task_close(task);
    for (int f = 0; f < 2; f++) unlink(small[f]);
}

static void refuse(const char *sentence, const char *format, const char *a, const char *b)
{
    char setting[320];
    kh_task *task = NULL;
    snprintf(setting, sizeof setting, format, a, b);
    assert_int_not_equal(kh_task_open(&task, setting), KH_OK);
    assert_null(task);
    if (!strstr(kh_last_error(), sentence))
        fail_msg("%s: found '%s', expected '%s'", setting, kh_last_error(), sentence);
}

static void mistakes_are_sentences(void **state)
{
    (void)state;
    refuse("bytes needs files=", "bytes%s%s", "", "");
    refuse("files= has no value", "bytes:files=%s%s", "", "");
    refuse("two files of 320 bytes are needed, found 1", "bytes:length=16,files=%s%s", path[0], "");
    refuse("short.txt has 319 bytes, windows of 16 need 320", "bytes:length=16,files=%s+%s",
           path[0], short_path);
    refuse("none.txt", "bytes:length=16,files=%s+%s/none.txt", path[0], folder);
    refuse("found 0", "bytes:length=%s,files=%s", "1000", folder);
    refuse("length must be", "bytes:length=0,files=%s+%s", path[0], path[1]);
}

/* Random bytes against letters: one look at the bytes tells them apart. Random against random: it does not. */
static void the_baseline_sees_bytes(void **state)
{
    (void)state;
    static unsigned char letters[20000], noise[2][sizeof letters];
    char setting[320], name[3][96];
    for (size_t i = 0; i < sizeof letters; i++) {
        letters[i] = (unsigned char)('a' + kh_rng_bits((kh_rng_key){9, 9}, i) % 26);
        for (uint64_t f = 0; f < 2; f++)
            noise[f][i] = (unsigned char)kh_rng_bits((kh_rng_key){9, f}, i);
    }
    for (int f = 0; f < 3; f++) {
        snprintf(name[f], sizeof name[f], "%s/n%d", folder, f);
        write_file(name[f], f < 2 ? noise[f] : letters, sizeof letters);
    }
    for (int f = 1; f < 3; f++) {
        kh_task_number b[KH_TASK_MOST_NUMBERS];
        size_t count = 0;
        snprintf(setting, sizeof setting, "bytes:length=200,files=%s+%s", name[0], name[f]);
        kh_task *task = open_task(setting);
        assert_int_equal(kh_task_baselines(task, 1, 3000, 1000, b, &count), KH_OK);
        assert_int_equal(count, 2);
        assert_true(fabs(b[0].value - 0.5) < 0.065);
        if (f == 1) assert_true(fabs(b[1].value - 0.5) < 0.07);
        if (f == 2) assert_true(b[1].value > 0.99);
        kh_task_close(task);
    }
    for (int f = 0; f < 3; f++) unlink(name[f]);
}

static void memory_may_end_anywhere(void **state)
{
    (void)state;
    char setting[256];
    snprintf(setting, sizeof setting, "bytes:files=%s+%s,length=%d", folder, path[0], WINDOW);
    for (uint64_t n = 1; n < 60; n++) {
        uint64_t live = kh_alloc_get_stats().live;
        kh_task *task = NULL;
        kh_alloc_fail_at(n);
        kh_status status = kh_task_open(&task, setting);
        kh_alloc_fail_at(0);
        kh_task_close(task);
        assert_true(kh_alloc_get_stats().live == live);
        if (status == KH_OK) {
            assert_true(n > 8);
            return;
        }
        assert_int_equal(status, KH_ERR_MEMORY);
    }
    fail_msg("it still fails");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_are_where_they_should_be),
        cmocka_unit_test(the_smallest_file_is_enough),
        cmocka_unit_test(mistakes_are_sentences),
        cmocka_unit_test(the_baseline_sees_bytes),
        cmocka_unit_test(memory_may_end_anywhere),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

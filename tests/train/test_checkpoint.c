/* Checkpoints: the same bits back, whatever happens between: kills, full disks, damage, another run. */
#include "base/alloc.h"
#include "base/file.h"
#include "format/json.h"
#include "support/golden_run.h"
#include "train/checkpoint.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64], folder[96];

/* In memory where possible: a kill leaves what was written there as on a disk, and nobody waits for one. */
static int make_root(void **state)
{
    (void)state;
    const char *memory = "/dev/shm";
    snprintf(root, sizeof root, "%s/test_checkpoint_XXXXXX",
             access(memory, W_OK) == 0 ? memory : "/tmp");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", root);
    return system(command) == 0 ? 0 : -1;
}

/* Each test has a run's folder of its own. */
static int fresh(void **state)
{
    static int number;
    (void)state;
    snprintf(folder, sizeof folder, "%s/run%d", root, number++);
    return 0;
}

static const char *at(const char *name)
{
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void refused(kh_status got, kh_status expected, const char *part)
{
    assert_int_equal(got, expected);
    if (!strstr(kh_last_error(), part))
        fail_msg("'%s' does not contain '%s'", kh_last_error(), part);
}

/* Names in a folder, but for "." and "..". */
static size_t entries(const char *path)
{
    size_t n = 0;
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

/* ---- a small model whose every byte follows from its step ---- */

enum { ROWS = 40, COLS = 100, GAIN = 33, MOMENTS = ROWS * COLS };
typedef struct content {
    float matrix[ROWS * COLS], gain[GAIN], m[MOMENTS];
    uint16_t v[MOMENTS];
    unsigned char position[24];
} content;

static void fill(content *c, uint64_t step)
{
    unsigned char *bytes = (unsigned char *)c;
    uint64_t x = step * 2 + 1;
    for (size_t i = 0; i < sizeof *c; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        bytes[i] = (unsigned char)(x >> 56); /* NaNs and infinities among them: bits are bits */
    }
}

static kh_tensor_view model_of(content *c, int i)
{
    const kh_tensor_view views[] = {{"blk.0.w", KH_TYPE_F32, ROWS, COLS, c->matrix},
                                    {"gain", KH_TYPE_F32, 1, GAIN, c->gain}};
    return views[i];
}

static kh_tensor_view moments_of(content *c, int i)
{
    const kh_tensor_view views[] = {{"v.blk.0.w", KH_TYPE_BF16, ROWS, COLS, c->v},
                                    {"m.blk.0.w", KH_TYPE_F32, ROWS, COLS, c->m}};
    return views[i];
}

static kh_status save(kh_checkpoints *run, uint64_t step)
{
    content c;
    fill(&c, step);
    kh_tensor_view model[] = {model_of(&c, 0), model_of(&c, 1)};
    kh_tensor_view moments[] = {moments_of(&c, 0), moments_of(&c, 1)};
    kh_checkpoint_blob blobs[] = {{"data", c.position, sizeof c.position}, {"none", NULL, 0}};
    kh_checkpoint_state s = {.step = step,
                             .key = {~step, step << 60},
                             .best = step % 2 ? (double)NAN : 1.0 / (double)(step + 3),
                             .config = kh_checkpoint_digest("abc", 3),
                             .blobs = blobs,
                             .blob_count = 2};
    return kh_checkpoints_save(run, &s, model, 2, moments, 2);
}

/* Everything that the checkpoint of a step holds. */
static void check(const kh_checkpoint *k, uint64_t step)
{
    content truth, c;
    fill(&truth, step);
    memcpy(&c, &truth, sizeof c); /* padding */
    memset(c.matrix, 0, sizeof c.matrix);
    memset(c.gain, 0, sizeof c.gain);
    memset(c.m, 0, sizeof c.m);
    memset(c.v, 0, sizeof c.v);
    kh_tensor_view model[] = {model_of(&c, 1), model_of(&c, 0)}; /* in another order */
    kh_tensor_view moments[] = {moments_of(&c, 1), moments_of(&c, 0)};
    GOOD(kh_checkpoint_read_model(k, model, 2));
    GOOD(kh_checkpoint_read_optimizer(k, moments, 2));
    assert_memory_equal(&c, &truth, sizeof c);
    const kh_checkpoint_state *s = kh_checkpoint_get_state(k);
    assert_true(s->step == step && s->key.seed == ~step && s->key.stream == step << 60);
    assert_true(step % 2 ? isnan(s->best) : s->best == 1.0 / (double)(step + 3));
    assert_true(s->config == kh_checkpoint_digest("abc", 3));
    const kh_checkpoint_blob *b = kh_checkpoint_get_blob(k, "data");
    assert_int_equal(b->size, sizeof truth.position);
    assert_memory_equal(b->data, truth.position, sizeof truth.position);
    assert_int_equal(kh_checkpoint_get_blob(k, "none")->size, 0);
    assert_null(kh_checkpoint_get_blob(k, "other"));
}

/* The newest checkpoint, checked; its step. `ignored`: what must be in the lines about others, or NULL. */
static uint64_t newest(const char *ignored)
{
    kh_checkpoint *k;
    kh_buf lines = {0};
    GOOD(kh_checkpoint_newest(&k, folder, &lines));
    uint64_t step = kh_checkpoint_get_state(k)->step;
    check(k, step);
    if (ignored && (!lines.data || !strstr(lines.data, ignored)))
        fail_msg("'%s' does not contain '%s'", lines.data ? lines.data : "", ignored);
    if (!ignored) assert_int_equal(lines.size, 0);
    kh_buf_free(&lines);
    kh_checkpoint_close(k);
    return step;
}

static kh_checkpoints *open_run(size_t keep)
{
    kh_checkpoints *run;
    GOOD(kh_checkpoints_open(&run, folder, keep));
    return run;
}

/* ---- tests ---- */

static void the_same_bits_come_back(void **state)
{
    (void)state;
    kh_checkpoint *k;
    kh_checkpoints *run = open_run(0);
    kh_buf lines = {0};
    refused(kh_checkpoint_newest(&k, folder, &lines), KH_ERR_NOT_FOUND, "no checkpoint");
    assert_null(k);
    const uint64_t steps[] = {1, 1200, 7, 123456789, 1200};
    for (size_t i = 0; i < 5; i++) GOOD(save(run, steps[i]));
    assert_int_equal(entries(folder), 4 + 1);
    assert_int_equal(entries(at("step-00001200")), 3);
    assert_int_equal(newest(NULL), 123456789);
    for (size_t i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "step-%08d", (int)steps[i]);
        GOOD(kh_checkpoint_open(&k, at(name)));
        assert_string_equal(kh_checkpoint_path(k), at(name));
        assert_true(strlen(kh_checkpoint_library(k)) >= 5);
        check(k, steps[i]);
        kh_checkpoint_close(k);
    }
    kh_checkpoint_close(NULL);
    kh_checkpoints_close(run);
    kh_checkpoints_close(NULL);
}

static void plain_sgd_keeps_no_moments(void **state)
{
    (void)state;
    content c;
    fill(&c, 5);
    kh_checkpoint *k;
    kh_checkpoints *run = open_run(1);
    kh_tensor_view model = model_of(&c, 1);
    kh_checkpoint_state s = {.step = 5, .best = 2.5};
    GOOD(kh_checkpoints_save(run, &s, &model, 1, NULL, 0));
    GOOD(kh_checkpoint_open(&k, at("step-00000005")));
    GOOD(kh_checkpoint_read_optimizer(k, NULL, 0));
    assert_true(kh_checkpoint_get_state(k)->best == 2.5);
    kh_checkpoint_close(k);
    kh_checkpoints_close(run);
}

static void the_last_ones_stay(void **state)
{
    (void)state;
    kh_checkpoints *run = open_run(2);
    for (uint64_t step = 10; step <= 50; step += 10) GOOD(save(run, step));
    assert_int_equal(entries(folder), 2 + 1);
    assert_int_equal(newest(NULL), 50);
    assert_int_equal(access(at("step-00000040"), F_OK), 0);
    /* A damaged one does not count, and does not make a good one go. */
    assert_int_equal(truncate(at("step-00000050/model.safetensors"), 1000), 0);
    GOOD(save(run, 60));
    assert_int_equal(access(at("step-00000040/state.json"), F_OK), 0);
    assert_int_equal(newest(NULL), 60);
    GOOD(save(run, 70));
    assert_int_equal(entries(folder), 2 + 1);
    /* What a user put there stays. */
    assert_int_equal(mkdir(at("step-1"), 0777), 0);
    assert_int_equal(mkdir(at("notes"), 0777), 0);
    GOOD(save(run, 80));
    assert_int_equal(entries(folder), 4 + 1);
    kh_checkpoints_close(run);
}

static void flip(const char *path, long from_end)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, -from_end, SEEK_END), 0);
    int byte = fgetc(f);
    assert_int_equal(fseek(f, -from_end, SEEK_END), 0);
    assert_int_equal(fputc(byte ^ 4, f), byte ^ 4);
    assert_int_equal(fclose(f), 0);
}

static void damage_is_named_and_passed_over(void **state)
{
    (void)state;
    static const char *const files[] = {"model.safetensors", "optimizer.safetensors", "state.json"};
    char path[128], said[160];
    kh_checkpoints *run = open_run(0);
    GOOD(save(run, 10));
    for (int f = 0; f < 3; f++)
        for (int kind = 0; kind < 4; kind++) { /* gone, empty, short, a bit of its middle */
            struct stat info;
            GOOD(save(run, 20));
            snprintf(path, sizeof path, "step-00000020/%s", files[f]);
            assert_int_equal(stat(at(path), &info), 0);
            if (kind == 0) assert_int_equal(unlink(at(path)), 0);
            if (kind == 1) assert_int_equal(truncate(at(path), 0), 0);
            if (kind == 2) assert_int_equal(truncate(at(path), info.st_size - 1), 0);
            if (kind == 3) flip(at(path), (long)info.st_size / 2);
            snprintf(said, sizeof said, "%s is no complete checkpoint: %s", at("step-00000020"),
                     at(path));
            assert_int_equal(newest(said), 10);
        }
    GOOD(save(run, 20)); /* replaces the damaged one */
    assert_int_equal(newest(NULL), 20);
    flip(at("step-00000020/state.json"), 5); /* in its own digest */
    assert_int_equal(newest("digest disagrees"), 10);
    /* each byte of state.json counts */
    struct stat info;
    GOOD(save(run, 20));
    assert_int_equal(stat(at("step-00000020/state.json"), &info), 0);
    for (long i = 1; i <= info.st_size; i++) {
        kh_checkpoint *k;
        flip(at("step-00000020/state.json"), i);
        refused(kh_checkpoint_open(&k, at("step-00000020")), KH_ERR_FORMAT, "state.json");
        assert_null(k);
        flip(at("step-00000020/state.json"), i);
    }
    assert_int_equal(newest(NULL), 20);
    /* where none is left, the newest is named */
    kh_checkpoint *k;
    flip(at("step-00000020/model.safetensors"), 9);
    GOOD(kh_checkpoint_newest(&k, folder, NULL));
    assert_int_equal(kh_checkpoint_get_state(k)->step, 10);
    kh_checkpoint_close(k);
    assert_int_equal(unlink(at("step-00000010/state.json")), 0);
    snprintf(said, sizeof said, "none of 2 checkpoints is complete; %s is no complete checkpoint: ",
             at("step-00000020"));
    refused(kh_checkpoint_newest(&k, folder, NULL), KH_ERR_FORMAT, said);
    assert_null(k);
    kh_checkpoints_close(run);
}

static void another_model_is_refused(void **state)
{
    (void)state;
    content c, before;
    kh_checkpoint *k;
    kh_checkpoints *run = open_run(0);
    GOOD(save(run, 3));
    GOOD(kh_checkpoint_open(&k, at("step-00000003")));
    fill(&c, 99);
    memcpy(&before, &c, sizeof c);
    kh_tensor_view v[] = {model_of(&c, 0), model_of(&c, 1), model_of(&c, 1)};
    refused(kh_checkpoint_read_model(k, v, 1), KH_ERR_ARGUMENT, "has 2 tensors, this run has 1");
    v[2].name = "bias";
    refused(kh_checkpoint_read_model(k, v, 3), KH_ERR_ARGUMENT, "has no tensor 'bias'");
    v[1].cols = GAIN - 1;
    refused(kh_checkpoint_read_model(k, v, 2), KH_ERR_ARGUMENT,
            "'gain' of 132 bytes has another shape than the 1 x 32");
    v[1] = model_of(&c, 1);
    v[0].rows = COLS, v[0].cols = ROWS;
    refused(kh_checkpoint_read_model(k, v, 2), KH_ERR_ARGUMENT, "another shape than the 100 x 40");
    kh_tensor_view m[] = {moments_of(&c, 0), moments_of(&c, 1)};
    m[0].type = KH_TYPE_F32;
    m[0].data = c.m;
    refused(kh_checkpoint_read_optimizer(k, m, 2), KH_ERR_ARGUMENT,
            "'v.blk.0.w' is BF16, in this run it is F32");
    assert_memory_equal(&c, &before, sizeof c);
    kh_checkpoint_close(k);
    kh_checkpoints_close(run);
}

static void two_runs_do_not_share_a_folder(void **state)
{
    (void)state;
    char said[64];
    kh_checkpoints *run = open_run(0), *second;
    snprintf(said, sizeof said, "another run writes its checkpoints here (process %d)",
             (int)getpid());
    refused(kh_checkpoints_open(&second, folder, 0), KH_ERR_STATE, said);
    assert_null(second);
    GOOD(save(run, 1));
    kh_checkpoints_close(run);
    run = open_run(0);
    assert_int_equal(newest(NULL), 1);
    kh_checkpoints_close(run);
    char nested[160];
    snprintf(nested, sizeof nested, "%s/no/such", folder);
    refused(kh_checkpoints_open(&run, nested, 0), KH_ERR_IO, "the folder cannot be made");
    snprintf(nested, sizeof nested, "%s/lock", folder);
    refused(kh_checkpoints_open(&run, nested, 0), KH_ERR_IO, nested);
}

/* Each limit lets another file fail; the last one none. */
static void a_full_disk_keeps_the_old_one(void **state)
{
    (void)state;
    kh_checkpoints *run = open_run(1);
    GOOD(save(run, 1));
    size_t live = kh_alloc_get_stats().live;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    const rlim_t limits[] = {100, 10000, 16500, 20000, 24000};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        small = old;
        small.rlim_cur = limits[i];
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        kh_status status = save(run, 2);
        setrlimit(RLIMIT_FSIZE, &old);
        refused(status, KH_ERR_IO, "checkpoint of step 2: ");
        refused(status, KH_ERR_IO, "cannot be written: File too large");
        assert_int_equal(entries(folder), 1 + 1);
        assert_int_equal(newest(NULL), 1);
    }
    signal(SIGXFSZ, handler);
    assert_int_equal(kh_alloc_get_stats().live, live);
    GOOD(save(run, 2));
    assert_int_equal(newest(NULL), 2);
    kh_checkpoints_close(run);
}

static void memory_runs_out_at_every_place(void **state)
{
    (void)state;
    kh_checkpoints *run = open_run(1);
    GOOD(save(run, 1));
    uint64_t live = kh_alloc_get_stats().live;
    kh_status status = KH_ERR_MEMORY;
    for (uint64_t n = 1; status != KH_OK; n++) {
        kh_alloc_fail_at(n);
        status = save(run, 2);
        kh_alloc_fail_at(0);
        if (status != KH_OK) assert_int_equal(status, KH_ERR_MEMORY);
        assert_int_equal(kh_alloc_get_stats().live, live);
        uint64_t step = newest(NULL);
        assert_true(step == 2 || (step == 1 && status != KH_OK));
        assert_true(n < 1000);
    }
    for (uint64_t n = 1; n == 1 || status != KH_OK; n++) {
        kh_checkpoint *k;
        kh_buf lines = {0};
        kh_alloc_fail_at(n);
        status = kh_checkpoint_newest(&k, folder, &lines);
        kh_alloc_fail_at(0);
        kh_buf_free(&lines);
        assert_int_equal(status, k ? KH_OK : KH_ERR_MEMORY);
        kh_checkpoint_close(k);
        assert_int_equal(kh_alloc_get_stats().live, live);
        assert_true(n < 1000);
    }
    kh_checkpoints_close(run);
}

static void mistakes(void **state)
{
    (void)state;
    static const char zeros[16];
    kh_checkpoints *run = open_run(0);
    GOOD(save(run, 1));
    kh_checkpoint_blob blobs[] = {{"a", zeros, 4}, {"a", zeros, 4}};
    kh_checkpoint_state s = {.step = 2, .blobs = blobs, .blob_count = 2};
    refused(kh_checkpoints_save(run, &s, NULL, 0, NULL, 0), KH_ERR_ARGUMENT, "'a' is there twice");
    blobs[1].name = "a\"";
    refused(kh_checkpoints_save(run, &s, NULL, 0, NULL, 0), KH_ERR_ARGUMENT, "a name of letters");
    blobs[1] = (kh_checkpoint_blob){"b", zeros, KH_CHECKPOINT_BLOBS - 3};
    refused(kh_checkpoints_save(run, &s, NULL, 0, NULL, 0), KH_ERR_ARGUMENT, "too large");
    assert_int_equal(entries(folder), 1 + 1);
    assert_int_equal(newest(NULL), 1);
    kh_checkpoints_close(run);
}

/* ---- kills ---- */

/* Saves steps first, first + 1, ... and tells the pipe what is done. */
static void save_until_killed(uint64_t first, int pipe)
{
    kh_checkpoints *run;
    if (kh_checkpoints_open(&run, folder, 1 + first % 2) != KH_OK) _exit(2);
    for (uint64_t step = first;; step++) {
        if (save(run, step) != KH_OK) _exit(3);
        if (write(pipe, &step, sizeof step) != sizeof step) _exit(4);
    }
}

/* 50 runs, each killed at another moment: a run finds what its predecessor said to be done, or one more, and at
 * no moment is there nothing. What is left half done goes with the next run. */
static void kills_at_any_moment(void **state)
{
    (void)state;
    uint64_t done = 0;
    unsigned seed = 12345;
    kh_checkpoints *run = open_run(2);
    GOOD(save(run, 0));
    kh_checkpoints_close(run);
    for (int round = 0; round < 50; round++) {
        int ends[2], result;
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            close(ends[0]);
            save_until_killed(done + 1, ends[1]);
        }
        assert_true(child > 0);
        close(ends[1]);
        uint64_t said = done, step;
        if (round % 3) /* at least one, or whatever there is */
            assert_int_equal(read(ends[0], &said, sizeof said), sizeof said);
        seed = seed * 1103515245u + 12345u;
        struct timespec pause = {0, (long)(seed >> 8) % 9000000};
        nanosleep(&pause, NULL);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &result, 0), child);
        if (!WIFSIGNALED(result)) fail_msg("the run ended by itself, %d", WEXITSTATUS(result));
        while (read(ends[0], &step, sizeof step) == sizeof step) said = step;
        close(ends[0]);
        run = open_run(2);
        done = newest(NULL);
        assert_true(done >= said && done <= said + 1);
        assert_true(entries(folder) <= 3 + 1); /* two, and the one it was killed before removing */
        kh_checkpoints_close(run);
    }
    assert_true(done > 30);
}

enum { CANNOT_TRACE = 77 };

/* Replaces the only checkpoint, of step `step`, and then makes the next one take its place. */
static void replace_and_follow(uint64_t step)
{
    kh_checkpoints *run;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(CANNOT_TRACE);
    raise(SIGSTOP);
    if (kh_checkpoints_open(&run, folder, 1) != KH_OK) _exit(2);
    _exit(save(run, step) == KH_OK && save(run, step + 1) == KH_OK ? 0 : 3);
}

/* Runs it up to the n-th stop at a system call (odd: before a call, even: behind it) and kills it there. 0: it ended
 * before. */
static int killed_at(uint64_t step, int n)
{
    int result;
    pid_t child = fork();
    if (child == 0) replace_and_follow(step);
    assert_int_equal(waitpid(child, &result, 0), child);
    for (int i = 0; i < n && WIFSTOPPED(result); i++) {
        assert_int_equal(ptrace(PTRACE_SYSCALL, child, NULL, NULL), 0);
        assert_int_equal(waitpid(child, &result, 0), child);
    }
    if (WIFSTOPPED(result)) {
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &result, 0), child);
        return 1;
    }
    assert_true(WIFEXITED(result));
    if (WEXITSTATUS(result) == CANNOT_TRACE) skip();
    assert_int_equal(WEXITSTATUS(result), 0);
    return 0;
}

/* A system call is all that changes a disk, so the moments before each are all that there are. */
static void kills_at_every_system_call(void **state)
{
    (void)state;
    uint64_t step = 8;
    int n = 1;
    kh_checkpoints *run = open_run(1);
    GOOD(save(run, step));
    kh_checkpoints_close(run);
    for (int going = 1; going; n += 2) {
        going = killed_at(step, n);
        run = open_run(1);
        uint64_t now = newest(NULL);
        assert_true(now == step || now == step + 1);
        assert_true(entries(folder) <= 2 + 1);
        GOOD(save(run, now)); /* of two, the older one goes */
        assert_int_equal(entries(folder), 1 + 1);
        kh_checkpoints_close(run);
        step = now;
    }
    assert_true(n > 80);
}

/* Killed between the two renames of a replacement: the old one gets its name back. */
static void a_half_replacement_is_undone(void **state)
{
    (void)state;
    kh_checkpoints *run = open_run(0);
    GOOD(save(run, 4));
    kh_checkpoints_close(run);
    assert_int_equal(rename(at("step-00000004"), at(".old-00000004")), 0);
    assert_int_equal(mkdir(at(".new-abcdef"), 0777), 0);
    assert_int_equal(mkdir(at(".gone-step-00000001"), 0777), 0);
    run = open_run(0);
    assert_int_equal(newest(NULL), 4);
    assert_int_equal(entries(folder), 1 + 1);
    kh_checkpoints_close(run);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, fresh)
    json_set_alloc_funcs(kh_alloc, kh_free);
    const struct CMUnitTest tests[] = {
        TEST(the_same_bits_come_back),
        TEST(plain_sgd_keeps_no_moments),
        TEST(the_last_ones_stay),
        TEST(damage_is_named_and_passed_over),
        TEST(another_model_is_refused),
        TEST(two_runs_do_not_share_a_folder),
        TEST(a_full_disk_keeps_the_old_one),
        TEST(memory_runs_out_at_every_place),
        TEST(mistakes),
        TEST(kills_at_any_moment),
        TEST(kills_at_every_system_call),
        TEST(a_half_replacement_is_undone),
    };
    return cmocka_run_group_tests_name("checkpoints", tests, make_root, remove_root);
}

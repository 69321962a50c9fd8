/* tests/support/golden_run.h: reads a golden file field by field, and runs a model over its ids. */
#ifndef KH_TESTS_SUPPORT_GOLDEN_RUN_H
#define KH_TESTS_SUPPORT_GOLDEN_RUN_H

#include <keyhole/session.h>
#include <stddef.h>
#include <stdint.h>

typedef struct golden {
    char *data;
    size_t size, at;
} golden;

/* Reads KH_TEST_DATA/NAME whole and checks its magic; fails the test otherwise. */
void golden_open(golden *g, const char *name, const char *magic);
void golden_close(golden *g);
uint32_t golden_u32(golden *g);
/* The next n elements of `size` bytes, in place. */
const void *golden_take(golden *g, size_t n, size_t size);

/* Path of a golden file; valid until the next call. */
const char *golden_path(const char *name);

/* Opens a model or fails the test with the library's sentence. */
kh_model *open_model(const char *path);
/* Opens tiny/NAME.gguf, and fills n token ids of its vocabulary. */
kh_model *open_tiny(const char *name, int32_t *ids /* [n] */, size_t n, uint32_t seed);
kh_session *open_session(const kh_model *model, const kh_session_options *options);

/* Logits [n][V] of a text in one read, on the heap (free with kh_free). */
float *all_logits(const kh_model *model, kh_session *session, const int32_t *ids, size_t n);

/* Largest difference, relative to the largest magnitude of what is expected; NaN when one is NaN. */
double relative_distance(const float *got, const float *want, size_t n);
double log_sum_exp(const float *x, size_t n);

#define GOOD(call)                                                                                 \
    do {                                                                                           \
        kh_status good_status = (call);                                                            \
        if (good_status != KH_OK) fail_msg("%s: %s", #call, kh_last_error());                      \
    } while (0)

#endif

/* Where tests find their models.
 *
 * A missing model must not look like a passed test. cmocka prints the name of a skipped test, but
 * its exit code says success; so the first skip registers an exit handler that turns success into
 * 77, which ctest reports as skipped. A failure keeps its own exit code. */
#include "support/models.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SKIPPED = 77 };

static struct {
    const char *name, *file;
    char path[1024];
} models[] = {
    {"smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", ""},
    {"gemma3", "gemma-3-270m-q4_k_m.gguf", ""},
    {"minilm", "all-MiniLM-L6-v2", ""}, /* a folder */
};

const char *kh_test_model(const char *name)
{
    const char *folder = getenv("KEYHOLE_MODELS"), *home = getenv("HOME");
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        if (strcmp(models[i].name, name) != 0) continue;
        if (folder && *folder)
            snprintf(models[i].path, sizeof models[i].path, "%s/%s", folder, models[i].file);
        else
            snprintf(models[i].path, sizeof models[i].path, "%s/.cache/keyhole/models/%s",
                     home ? home : "", models[i].file);
        return access(models[i].path, R_OK) == 0 ? models[i].path : NULL;
    }
    return NULL;
}

static void leave(int code, void *unused)
{
    (void)unused;
    fflush(NULL);
    if (code == 0) _exit(SKIPPED);
}

const char *kh_test_need_model(const char *name)
{
    static int registered;
    const char *path = kh_test_model(name), *require = getenv("KEYHOLE_REQUIRE_MODELS");
    if (path) return path;
    if (require && strcmp(require, "1") == 0)
        fail_msg("the model %s is missing: scripts/models --all obtains it", name);
    fprintf(stderr, "the model %s is missing (scripts/models --all obtains it)\n", name);
    if (!registered++) on_exit(leave, NULL);
    skip();
    return "";
}

/* A measurement in a process of its own.
 *
 * Peak memory is a property of a process, so a method's figure is honest only when nothing else ran in
 * it. The child starts threads of its own (cpu/pool.c), writes its result and its error sentence into a
 * page that both share, and ends without running the parent's exit handlers. The mapped model file is
 * shared by all, as it is in real use. */
#include "bench/isolate.h"

#include "base/fail.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct shared {
    kh_status status;
    char sentence[1024];
    char result[];
} shared;

static void run_child(shared *page, kh_isolate_body *body, void *context, void *result, size_t size)
{
    page->status = body(context, result);
    memcpy(page->result, result, size);
    size_t n = strnlen(kh_last_error(), sizeof page->sentence - 1);
    memcpy(page->sentence, kh_last_error(), n);
    page->sentence[n] = 0;
    _exit(0);
}

kh_status kh_isolate(int isolate, kh_isolate_body *body, void *context, void *result, size_t size)
{
    if (!isolate) return body(context, result);
    size_t whole = sizeof(shared) + size;
    shared *page = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) KH_FAIL(KH_ERR_MEMORY, "no memory for the result of a measurement");
    page->status = KH_ERR_CHECK;
    pid_t child = fork();
    if (child == 0) run_child(page, body, context, result, size);
    kh_status status = KH_OK;
    int how = 0;
    if (child < 0)
        status = kh_fail(KH_ERR_MEMORY, "a measurement could not be started: %s", strerror(errno));
    else
        while (waitpid(child, &how, 0) < 0 && errno == EINTR) {
        }
    if (status == KH_OK && WIFSIGNALED(how))
        status = kh_fail(KH_ERR_CHECK, "a measurement was ended by signal %d", WTERMSIG(how));
    else if (status == KH_OK && page->status != KH_OK)
        status = kh_fail(page->status, "%s",
                         page->sentence[0] ? page->sentence : "a measurement ended early");
    if (status == KH_OK) memcpy(result, page->result, size);
    munmap(page, whole);
    return status;
}

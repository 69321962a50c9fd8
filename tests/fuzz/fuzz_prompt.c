/* Fuzz target of saved prompts.
 *
 * A prompt of a tiny model is saved once; an input is a list of edits to that file, after a byte that
 * chooses cache type and attention:
 *
 *     | which | edit | edit | ...      edit: | place u24 | how u8 | value u16 |
 *
 * Loading answers with a sentence or works; either way the session then reads on. An input whose first
 * byte is 255 is the file itself. */
#include "base/alloc.h"
#include "base/file.h"
#include "support/golden_run.h"

#include <keyhole/keyhole.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { KINDS = 4, READ = 70, ITSELF = 255, EDIT = 6 };
enum how { BYTE, HEAD_BYTE, CUT, WORD, ONES, ZEROS, HOWS };

static struct kind {
    kh_session_options options;
    kh_session *session;
    char *file; /* a saved prompt */
    size_t size;
} kinds[KINDS] = {
    {.options = {.attn = "full", .k_type = KH_CACHE_F32, .v_type = KH_CACHE_F32}},
    {.options = {.attn = "topk:k=3,tail=mean"}},
    {.options = {.attn = "topk:k=9,recent=2,sinks=1,min-p=0.05", .v_type = KH_CACHE_Q8_0}},
    {.options = {.attn = "window:recent=8,sinks=2", .k_type = KH_CACHE_Q8_0}},
};
static kh_model *model;

static void must(int good)
{
    if (good) return;
    fprintf(stderr, "%s\n", kh_last_error());
    abort();
}

static void start(void)
{
    int32_t ids[READ];
    char path[] = "/tmp/keyhole-fuzz-XXXXXX";
    close(mkstemp(path));
    must(kh_model_open(&model, golden_path("tiny/llama-llama3.gguf")) == KH_OK);
    for (int i = 0; i < READ; i++) ids[i] = i * 5 % kh_model_get_info(model)->vocabulary;
    for (int i = 0; i < KINDS; i++) {
        struct kind *k = &kinds[i];
        k->options.threads = 1;
        k->options.context = 128;
        k->options.longer = 1;
        must(kh_session_open(&k->session, model, &k->options) == KH_OK);
        must(kh_session_read(k->session, ids, READ, NULL) == KH_OK);
        must(kh_session_save(k->session, path) == KH_OK);
        must(kh_file_read(&k->file, &k->size, path, 1 << 24) == KH_OK);
    }
    unlink(path);
}

static size_t edit(uint8_t *file, size_t size, const uint8_t *e)
{
    size_t place = (e[0] | (size_t)e[1] << 8 | (size_t)e[2] << 16) % size, n = e[4] + 1u;
    uint64_t word = (uint64_t)(int64_t)(int16_t)(e[4] | e[5] << 8);
    if (n > size - place) n = size - place;
    switch ((enum how)(e[3] % HOWS)) {
    case BYTE: file[place] = e[4]; break;
    case HEAD_BYTE: file[place % 256 < size ? place % 256 : 0] = e[4]; break;
    case CUT: return e[5] % 8 ? size : place + 1;
    case WORD:
        place = place % 256 & ~(size_t)7;
        if (place + 8 <= size) memcpy(file + place, &word, 8);
        break;
    case ONES: memset(file + place, 0xff, n); break;
    case ZEROS: memset(file + place, 0, n); break;
    case HOWS: break;
    }
    return size;
}

static void run(struct kind *k, const uint8_t *file, size_t size, int fd, const char *path)
{
    int32_t V = kh_model_get_info(model)->vocabulary;
    must(ftruncate(fd, 0) == 0 && pwrite(fd, file, size, 0) == (ssize_t)size);
    uint64_t live = kh_alloc_get_stats().live;
    size_t before = kh_session_length(k->session);
    kh_status status = kh_session_load(k->session, path);
    size_t length = kh_session_length(k->session);
    must(kh_alloc_get_stats().live == live);
    if (status != KH_OK) must(kh_last_error()[0] && (length == 0 || length == before));
    must(length <= kh_session_context(k->session));
    for (size_t i = 0; i < length; i++)
        must(kh_session_tokens(k->session)[i] >= 0 && kh_session_tokens(k->session)[i] < V);
    if (length + 3 > kh_session_context(k->session))
        must(kh_session_rewind(k->session, length - 3) == KH_OK);
    kh_generate_result made;
    kh_generate_options g = {.max_tokens = 2, .ignore_end = 1};
    must(kh_session_read(k->session, &(int32_t){1}, 1, NULL) == KH_OK);
    must(kh_generate(k->session, &g, &made) == KH_OK);
    must(kh_alloc_get_stats().live == live);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        start();
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (size < 1) return 0;
    struct kind *k = &kinds[data[0] % KINDS];
    if (data[0] == ITSELF) {
        run(k, data + 1, size - 1, fd, path);
        return 0;
    }
    uint8_t *file = malloc(k->size);
    if (!file) return 0;
    memcpy(file, k->file, k->size);
    size_t n = k->size;
    for (size_t at = 1; at + EDIT <= size; at += EDIT) n = edit(file, n, data + at);
    run(k, file, n, fd, path);
    free(file);
    return 0;
}

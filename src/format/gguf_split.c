/* File names of split models: NAME-00002-of-00003.gguf, numbered from 1 (llama.cpp's convention; the
 * keys split.no, split.count and split.tensors.count inside the files are numbered from 0). */
#include "format/gguf_part.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdio.h>
#include <string.h>

enum { TAIL = 20 }; /* "-00002-of-00003.gguf" */

/* Five digits, or -1. */
static long five_digits(const char *text)
{
    long n = 0;
    for (int i = 0; i < 5; i++) {
        if (text[i] < '0' || text[i] > '9') return -1;
        n = n * 10 + (text[i] - '0');
    }
    return n;
}

kh_status kh_gguf_split_path(char **out, const char *path, uint64_t index, uint64_t count)
{
    *out = NULL;
    size_t length = strlen(path);
    const char *tail = length >= TAIL ? path + length - TAIL : "";
    int good = tail[0] == '-' && five_digits(tail + 1) > 0 && memcmp(tail + 6, "-of-", 4) == 0 &&
               five_digits(tail + 10) == (long)count && strcmp(tail + 15, ".gguf") == 0;
    if (!good)
        KH_FAIL(
            KH_ERR_FORMAT,
            "%s: one of %llu parts of a model; its name should end in '-%05llu-of-%05llu.gguf', so "
            "that the other parts can be found beside it",
            path, (unsigned long long)count, (unsigned long long)index + 1,
            (unsigned long long)count);
    char *name = kh_alloc(length + 1);
    if (!name) KH_FAIL(KH_ERR_MEMORY, "no memory for the name of a model file");
    memcpy(name, path, length + 1);
    char digits[8];
    snprintf(digits, sizeof digits, "%05u", (unsigned)(index + 1) % 100000u);
    memcpy(name + length - TAIL + 1, digits, 5);
    *out = name;
    return KH_OK;
}

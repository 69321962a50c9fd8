/* tests/support/st_file.h: safetensors files put together from text and bytes, right and wrong ones.
 * Independent of the reader and the writer. */
#ifndef KH_TESTS_SUPPORT_ST_FILE_H
#define KH_TESTS_SUPPORT_ST_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Size, header and data bytes (i * 7 + 1) in a block of exactly the right size; free() it. */
static inline uint8_t *st_file(const char *header, size_t data_bytes, size_t *size)
{
    uint64_t n = strlen(header);
    uint8_t *file = malloc(8 + n + data_bytes);
    if (!file) abort();
    memcpy(file, &n, 8);
    memcpy(file + 8, header, n);
    for (size_t i = 0; i < data_bytes; i++) file[8 + n + i] = (uint8_t)(i * 7 + 1);
    *size = 8 + (size_t)n + data_bytes;
    return file;
}

static inline void save_bytes(const char *folder, const char *name, const void *bytes, size_t size)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) abort();
}

static inline void save_text(const char *folder, const char *name, const char *text)
{
    save_bytes(folder, name, text, strlen(text));
}

static inline void save_st(const char *folder, const char *name, const char *header,
                           size_t data_bytes)
{
    size_t size;
    uint8_t *file = st_file(header, data_bytes, &size);
    save_bytes(folder, name, file, size);
    free(file);
}

#endif

/* tests/support/gguf_writer.h: writes GGUF files into memory, right and wrong ones, for tests.
 *
 * Independent of the reader. The writer notes where it put each length, count, dimension, offset, kind
 * and type, so that a test can overwrite every one of them. Free with drop(). */
#ifndef KH_TESTS_SUPPORT_GGUF_WRITER_H
#define KH_TESTS_SUPPORT_GGUF_WRITER_H

#include "format/gguf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MARKS = 256 };

typedef struct marks {
    size_t at[MARKS];
    size_t n;
} marks;

typedef struct writer {
    uint8_t *data;
    size_t size, capacity;
    marks sizes;  /* 8 bytes: lengths, counts, dimensions, offsets */
    marks kinds;  /* 4 bytes: value kinds */
    marks types;  /* 4 bytes: tensor types */
    marks n_dims; /* 4 bytes */
    size_t tensor_bytes;
} writer;

static inline void put(writer *w, const void *bytes, size_t n)
{
    if (w->size + n > w->capacity) {
        w->capacity = 2 * (w->size + n) + 4096;
        w->data = realloc(w->data, w->capacity);
        assert_non_null(w->data);
    }
    if (n) memcpy(w->data + w->size, bytes, n);
    w->size += n;
}

static inline void mark(marks *m, size_t at)
{
    if (m->n < MARKS) m->at[m->n++] = at;
}

static inline void put_u32(writer *w, uint32_t value)
{
    put(w, &value, 4);
}

static inline void put_size(writer *w, uint64_t value)
{
    mark(&w->sizes, w->size);
    put(w, &value, 8);
}

static inline void put_text(writer *w, const char *text)
{
    put_size(w, strlen(text));
    put(w, text, strlen(text));
}

static inline void head(writer *w, uint32_t version, uint64_t tensors, uint64_t keys)
{
    *w = (writer){0};
    put(w, "GGUF", 4);
    put_u32(w, version);
    put_size(w, tensors);
    put_size(w, keys);
}

static inline void key(writer *w, const char *name, uint32_t kind)
{
    put_text(w, name);
    mark(&w->kinds, w->size);
    put_u32(w, kind);
}

static inline void key_fixed(writer *w, const char *name, uint32_t kind, const void *value,
                             size_t n)
{
    key(w, name, kind);
    put(w, value, n);
}

static inline void key_u32(writer *w, const char *name, uint32_t value)
{
    key_fixed(w, name, KH_GGUF_U32, &value, 4);
}

static inline void key_text(writer *w, const char *name, const char *value)
{
    key(w, name, KH_GGUF_STRING);
    put_text(w, value);
}

static inline void key_array(writer *w, const char *name, uint32_t element, uint64_t count)
{
    key(w, name, KH_GGUF_ARRAY);
    mark(&w->kinds, w->size);
    put_u32(w, element);
    put_size(w, count);
}

static inline void tensor_at(writer *w, const char *name, uint32_t type, uint32_t n_dims,
                             const uint64_t *dims, uint64_t offset)
{
    put_text(w, name);
    mark(&w->n_dims, w->size);
    put_u32(w, n_dims);
    for (uint32_t i = 0; i < n_dims && i < 8; i++) put_size(w, dims[i]);
    mark(&w->types, w->size);
    put_u32(w, type);
    put_size(w, offset);
}

/* The next tensor in the data section. */
static inline void tensor(writer *w, const char *name, kh_type type, uint64_t rows, uint64_t cols)
{
    uint64_t dims[2] = {cols, rows};
    tensor_at(w, name, (uint32_t)type, rows > 1 ? 2 : 1, dims, w->tensor_bytes);
    w->tensor_bytes += (kh_type_row_bytes(type, cols) * rows + 31) / 32 * 32;
}

/* Padding and data; byte i of the data section is i * 7 + 1. The last tensor ends the file. */
static inline void data(writer *w, size_t bytes)
{
    while (w->size % 32) put(w, "", 1);
    for (size_t i = 0; i < bytes; i++) {
        uint8_t b = (uint8_t)(i * 7 + 1);
        put(w, &b, 1);
    }
}

static inline void drop(writer *w)
{
    free(w->data);
    *w = (writer){0};
}

#define KEY_FIXED(w, name, kind, type, value) key_fixed(w, name, kind, &(type){value}, sizeof(type))

/* Every kind of value and a few tensors. */
static inline void whole(writer *w, uint32_t version)
{
    head(w, version, 4, 20);
    key_text(w, "general.architecture", "llama");
    KEY_FIXED(w, "a.u8", KH_GGUF_U8, uint8_t, 200);
    KEY_FIXED(w, "a.i8", KH_GGUF_I8, int8_t, -100);
    KEY_FIXED(w, "a.u16", KH_GGUF_U16, uint16_t, 60000);
    KEY_FIXED(w, "a.i16", KH_GGUF_I16, int16_t, 30000);
    KEY_FIXED(w, "a.u32", KH_GGUF_U32, uint32_t, 4000000000u);
    KEY_FIXED(w, "a.i32", KH_GGUF_I32, int32_t, -5);
    KEY_FIXED(w, "a.f32", KH_GGUF_F32, float, 1.5f);
    KEY_FIXED(w, "a.yes", KH_GGUF_BOOL, uint8_t, 1);
    KEY_FIXED(w, "a.no", KH_GGUF_BOOL, uint8_t, 0);
    KEY_FIXED(w, "a.u64", KH_GGUF_U64, uint64_t, 1ull << 63);
    KEY_FIXED(w, "a.i64", KH_GGUF_I64, int64_t, INT64_MIN);
    KEY_FIXED(w, "a.f64", KH_GGUF_F64, double, 0.1);
    KEY_FIXED(w, "a.nan", KH_GGUF_F32, uint32_t, 0x7fc00000u);
    KEY_FIXED(w, "a.inf", KH_GGUF_F64, uint64_t, 0x7ff0000000000000ull);
    key_text(w, "a.empty", "");
    key_array(w, "b.strings", KH_GGUF_STRING, 3);
    put_text(w, "one");
    put_text(w, "");
    put_text(w, "\xe4\xb8\x89");
    key_array(w, "b.i32", KH_GGUF_I32, 3);
    put(w, (int32_t[]){7, -8, 9}, 12);
    key_array(w, "b.bool", KH_GGUF_BOOL, 2);
    put(w, "\1\0", 2);
    key_array(w, "b.none", KH_GGUF_F32, 0);
    tensor(w, "one.weight", KH_TYPE_F32, 3, 4);
    tensor(w, "two.weight", KH_TYPE_Q8_0, 2, 64);
    tensor(w, "three.weight", KH_TYPE_Q6_K, 1, 256);
    tensor(w, "four.weight", KH_TYPE_BF16, 1, 16);
    data(w, w->tensor_bytes);
}

/* The status, and that the sentence names the file, the key and what is wrong. */
static inline void refused(kh_status status, kh_status expected, const char *key_name,
                           const char *words)
{
    assert_int_equal(status, expected);
    if (!strstr(kh_last_error(), key_name) || !strstr(kh_last_error(), words))
        fail_msg("'%s' should name '%s' and '%s'", kh_last_error(), key_name, words);
}

#endif

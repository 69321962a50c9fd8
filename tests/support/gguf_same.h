/* tests/support/gguf_same.h: two GGUF objects say the same, whatever they are made of; and a composed
 * copy of one. */
#ifndef KH_TESTS_SUPPORT_GGUF_SAME_H
#define KH_TESTS_SUPPORT_GGUF_SAME_H

#include "support/gguf_writer.h"

#define GOOD(expr)                                                                                 \
    do {                                                                                           \
        if ((expr) != KH_OK) fail_msg("%s", kh_last_error());                                      \
    } while (0)

static inline void same_values(const kh_gguf *a, const kh_gguf *b)
{
    static const size_t bytes[] = {
        [KH_GGUF_U8] = 1,  [KH_GGUF_I8] = 1,  [KH_GGUF_U16] = 2, [KH_GGUF_I16] = 2,
        [KH_GGUF_U32] = 4, [KH_GGUF_I32] = 4, [KH_GGUF_F32] = 4, [KH_GGUF_BOOL] = 1,
        [KH_GGUF_U64] = 8, [KH_GGUF_I64] = 8, [KH_GGUF_F64] = 8};
    assert_int_equal(kh_gguf_value_count(a), kh_gguf_value_count(b));
    for (size_t i = 0; i < kh_gguf_value_count(a); i++) {
        const kh_gguf_value *x = kh_gguf_value_at(a, i), *y = kh_gguf_value_at(b, i);
        assert_int_equal(x->key.size, y->key.size);
        assert_memory_equal(x->key.data, y->key.data, x->key.size);
        assert_int_equal(x->kind, y->kind);
        assert_int_equal(x->element, y->element);
        assert_int_equal(x->count, y->count);
        if (x->element != KH_GGUF_STRING) {
            assert_memory_equal(x->data, y->data, bytes[x->element] * x->count);
            continue;
        }
        for (uint64_t j = 0; j < x->count; j++) {
            assert_int_equal(x->strings[j].size, y->strings[j].size);
            assert_memory_equal(x->strings[j].data - 8, y->strings[j].data - 8,
                                8 + x->strings[j].size);
        }
    }
}

static inline void same_tensors(const kh_gguf *a, const kh_gguf *b)
{
    assert_int_equal(kh_gguf_tensor_count(a), kh_gguf_tensor_count(b));
    for (size_t i = 0; i < kh_gguf_tensor_count(a); i++) {
        const kh_tensor *x = kh_gguf_tensor_at(a, i), *y = kh_gguf_tensor(b, x->name);
        assert_ptr_equal(y, kh_gguf_tensor_at(b, i));
        assert_string_equal(x->name, y->name);
        assert_int_equal(x->type, y->type);
        assert_int_equal(x->n_dims, y->n_dims);
        assert_memory_equal(x->dims, y->dims, sizeof x->dims);
        assert_int_equal(x->size, y->size);
        assert_memory_equal(x->data, y->data, x->size);
    }
}

static inline kh_status copy_of(kh_gguf **out, const kh_gguf *from)
{
    kh_gguf *file;
    *out = NULL;
    kh_status status = kh_gguf_new(&file, "copy");
    for (size_t i = 0; status == KH_OK && i < kh_gguf_value_count(from); i++)
        status = kh_gguf_set_value(file, kh_gguf_value_at(from, i));
    for (size_t i = 0; status == KH_OK && i < kh_gguf_tensor_count(from); i++) {
        const kh_tensor *t = kh_gguf_tensor_at(from, i);
        status = kh_gguf_add_tensor(file, t->name, t->type, t->n_dims, t->dims, t->data);
    }
    if (status == KH_OK)
        *out = file;
    else
        kh_gguf_close(file);
    return status;
}

#endif

/* Values of JSON, over jansson: the forms that --json and the server share.
 *
 * jansson allocates through base/alloc.h, so its memory is counted and can fail in tests. Numbers
 * that JSON cannot say become null; bytes that are no UTF-8 become U+FFFD, because a model may emit
 * anything and a reader must always get a valid document. A NULL from jansson means "no memory" and
 * travels on through json_object_set_new and json_pack, which refuse NULL; it is reported where the
 * document is written. A list that could not take an element has lost it: whoever builds many of them asks at the end
 * whether any allocation of this thread failed, instead of after every element. */
#include "wire/json_value.h"

#include "base/alloc.h"
#include "base/buf.h"

#include <math.h>

static _Thread_local uint64_t failures;

void wire_setup(void)
{
    json_set_alloc_funcs(kh_alloc, kh_free);
}

void wire_begin(void)
{
    failures = kh_alloc_failures();
}

int wire_is_short(void)
{
    return kh_alloc_failures() != failures;
}

json_t *wire_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* Length of the well-formed character at `at`, or 0. */
static size_t character(const unsigned char *at, size_t left)
{
    static const struct {
        unsigned char mask, head;
        uint32_t least;
    } shapes[] = {{0x80, 0, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (size_t n = 1; n <= 4; n++) {
        if ((at[0] & shapes[n - 1].mask) != shapes[n - 1].head || n > left) continue;
        uint32_t code = at[0] & ~(unsigned)shapes[n - 1].mask;
        for (size_t i = 1; i < n; i++) {
            if ((at[i] & 0xc0) != 0x80) return 0;
            code = code << 6 | (at[i] & 0x3fu);
        }
        int valid = code >= shapes[n - 1].least && code <= 0x10ffff &&
                    !(code >= 0xd800 && code <= 0xdfff);
        return valid ? n : 0;
    }
    return 0;
}

json_t *wire_text(const char *text, size_t size)
{
    kh_buf clean = {0};
    kh_status status = kh_buf_reserve(&clean, size + 1);
    for (size_t i = 0; i < size && status == KH_OK;) {
        size_t n = character((const unsigned char *)text + i, size - i);
        status = n ? kh_buf_add(&clean, text + i, n) : kh_buf_text(&clean, "\xef\xbf\xbd");
        i += n ? n : 1;
    }
    json_t *value = status == KH_OK ? json_stringn_nocheck(clean.data, clean.size) : NULL;
    kh_buf_free(&clean);
    return value;
}

json_t *wire_ids(const int32_t *ids, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count && list; i++)
        if (json_array_append_new(list, json_integer(ids[i])) != 0) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

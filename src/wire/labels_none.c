/* In the place of labels.c and text_search.c where the program was built without SQLite. */
#include "base/fail.h"
#include "wire/labels.h"
#include "wire/questions.h"

static kh_status missing(void)
{
    KH_FAIL(KH_ERR_UNSUPPORTED, "this keyhole was built without SQLite, which labels, views and "
                                "top tokens are kept in: install it "
                                "(Debian's libsqlite3-dev, scripts/setup does it) and build again");
}

kh_status wire_labels_list(const wire_labels *at, json_t **out)
{
    (void)at;
    *out = NULL;
    return missing();
}

kh_status wire_labels_put(const wire_labels *at, const json_t *body, json_t **out)
{
    (void)body;
    return wire_labels_list(at, out);
}

kh_status wire_labels_export(const wire_labels *at, kh_buf *out)
{
    (void)at;
    (void)out;
    return missing();
}

kh_status wire_labels_import(const wire_labels *at, const char *text, size_t size, json_t **out)
{
    (void)text;
    (void)size;
    return wire_labels_list(at, out);
}

kh_status wire_views_list(const wire_labels *at, json_t **out)
{
    return wire_labels_list(at, out);
}

kh_status wire_views_get(const wire_labels *at, const char *name, json_t **out)
{
    (void)name;
    return wire_labels_list(at, out);
}

kh_status wire_views_put(const wire_labels *at, const char *name, const json_t *body, json_t **out)
{
    return wire_labels_put(at, name ? body : NULL, out);
}

kh_status wire_views_delete(const wire_labels *at, const char *name, json_t **out)
{
    return wire_views_get(at, name, out);
}

kh_status wire_search_text(const wire_ask *ask)
{
    (void)ask;
    return missing();
}

kh_status wire_search_table(const wire_ask *ask)
{
    return wire_search_text(ask);
}

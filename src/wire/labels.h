/* wire/labels.h: names that people give to parts of a model, and views of the page that they keep, in one SQLite file. Each
 * call opens the file, does its work in one transaction, and closes it, so any thread of any process may call; a process
 * that finds it locked waits for up to five seconds. The file and its folders are made by the first call that writes. All
 * are KH_ERR_UNSUPPORTED where the program was built without SQLite. */
#ifndef KH_WIRE_LABELS_H
#define KH_WIRE_LABELS_H

#include "base/buf.h"
#include "wire/fields.h"

#include <keyhole/model.h>

typedef struct wire_labels {
    const char *path; /* NULL: there is none, which is KH_ERR_UNSUPPORTED */
    const kh_model *model;
} wire_labels;

/* {"labels": [{"part", "text", "time"}]}, by part; behind them those of the same model in another file (its name and
 * shape are the same, as of another quantisation) for parts that have none, with "from": its identity. */
kh_status wire_labels_list(const wire_labels *at, json_t **out);
/* {"part", "text"}: an empty text takes the label away. *out: {"part", "text", "time"}. */
kh_status wire_labels_put(const wire_labels *at, const json_t *body, json_t **out);
/* One {"part", "text", "time"} a line, in the order of the bytes of part, then {"view", "query", "time"} likewise; appended. */
kh_status wire_labels_export(const wire_labels *at, kh_buf *out);
/* Such lines, all or none; the newer label or view wins. *out: {"labels", "views": in the lines, "changed": here}. */
kh_status wire_labels_import(const wire_labels *at, const char *text, size_t size, json_t **out);

/* Views: a query of the page's address ("?prompt=...") under a name of at most 80 characters. */
kh_status wire_views_list(const wire_labels *at, json_t **out);
kh_status wire_views_get(const wire_labels *at, const char *name, json_t **out);
kh_status wire_views_put(const wire_labels *at, const char *name, const json_t *body, json_t **out);
kh_status wire_views_delete(const wire_labels *at, const char *name, json_t **out);

#endif

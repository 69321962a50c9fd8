/* Labels of parts and saved views: a file beside the model, which wire/labels.c keeps. It is read and written on the
 * connection's thread: nothing here needs the model's passes. */
#include "base/fail.h"
#include "server/server_impl.h"
#include "wire/labels.h"

static wire_labels labels_of(const server_job *job)
{
    return (wire_labels){server_job_options(job)->labels, server_job_model(job)};
}

static kh_status list(server_job *job)
{
    const wire_labels at = labels_of(job);
    json_t *out = NULL;
    KH_TRY(wire_labels_list(&at, &out));
    return server_send(job, out);
}

static kh_status put(server_job *job)
{
    const wire_labels at = labels_of(job);
    json_t *out = NULL;
    KH_TRY(wire_labels_put(&at, server_job_body(job), &out));
    return server_send(job, out);
}

static kh_status export_all(server_job *job)
{
    const wire_labels at = labels_of(job);
    kh_buf text = {0};
    kh_status status = wire_labels_export(&at, &text);
    if (status == KH_OK)
        status = server_answer(job, 200, "application/x-ndjson", text.data ? text.data : "",
                               text.size);
    kh_buf_free(&text);
    return status;
}

static kh_status import_all(server_job *job)
{
    const wire_labels at = labels_of(job);
    const json_t *text = wire_member(server_job_body(job), "text");
    json_t *out = NULL;
    if (!json_is_string(text)) KH_FAIL(KH_ERR_ARGUMENT, "lines of labels are expected");
    KH_TRY(wire_labels_import(&at, json_string_value(text), json_string_length(text), &out));
    return server_send(job, out);
}

static kh_status list_views(server_job *job)
{
    const wire_labels at = labels_of(job);
    json_t *out = NULL;
    KH_TRY(wire_views_list(&at, &out));
    return server_send(job, out);
}

static kh_status get_view(server_job *job)
{
    const wire_labels at = labels_of(job);
    json_t *out = NULL;
    KH_TRY(wire_views_get(&at, server_job_part(job), &out));
    return server_send(job, out);
}

static kh_status put_view(server_job *job)
{
    const wire_labels at = labels_of(job);
    json_t *out = NULL;
    KH_TRY(wire_views_put(&at, server_job_part(job), server_job_body(job), &out));
    return server_send(job, out);
}

static kh_status delete_view(server_job *job)
{
    const wire_labels at = labels_of(job);
    json_t *out = NULL;
    KH_TRY(wire_views_delete(&at, server_job_part(job), &out));
    return server_send(job, out);
}

const server_route server_routes_labels[] = {
    {"GET", "/v1/labels", SERVER_HERE, list, "the labels of parts of this model", 0, NULL},
    {"PUT", "/v1/labels", SERVER_HERE, put, "labels a part; an empty text takes the label away", 0,
     "part:text text:text"},
    {"GET", "/v1/labels/export", SERVER_HERE, export_all, "all labels and views as lines of JSON",
     0, NULL},
    {"POST", "/v1/labels/import", SERVER_HERE, import_all,
     "merges such lines; of two labels or views the newer one wins", SERVER_PLAIN, NULL},
    {"GET", "/v1/views", SERVER_HERE, list_views, "the saved views of this model", 0, NULL},
    {"GET", "/v1/views/{name}", SERVER_HERE, get_view, "a saved view", 0, NULL},
    {"PUT", "/v1/views/{name}", SERVER_HERE, put_view, "saves a view of the page", 0, "query:text"},
    {"DELETE", "/v1/views/{name}", SERVER_HERE, delete_view, "forgets a saved view", 0, NULL},
    {NULL, NULL, SERVER_HERE, NULL, NULL, 0, NULL}};

/* Labels and saved views in SQLite.
 *
 *     model (identity, name, shape)           label (identity, part, text, time)        view (identity, name, query, time)
 *
 * The key is the model file's identity; name and shape (its architecture's numbers) say which other files are the same
 * model, whose labels are offered. Two people's labels merge by time, and of equal times by text, so that the order of
 * merges does not matter; a label that is taken away stays as an empty text with its time, so that an older file does not
 * bring it back. Views merge likewise, but one that is deleted is gone: a file that has it is where it comes back from. A label that is set here gets a time behind the one it replaces, whatever the clocks say.
 *
 * How the file is opened and locked is wire/database.c's. */
#include "wire/labels.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "wire/database.h"
#include "wire/json_value.h"

#include <keyhole/inspect.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { TEXT = 4096, NAME = 80, QUERY = 65536, VIEWS = 1000, APPLICATION = 1802005602 /* "khlb" */ };

static const char schema[] =
    "CREATE TABLE model (identity TEXT PRIMARY KEY, name TEXT NOT NULL, shape TEXT NOT NULL)"
    " WITHOUT ROWID;"
    "CREATE TABLE label (identity TEXT NOT NULL, part TEXT NOT NULL, text TEXT NOT NULL,"
    " time INTEGER NOT NULL, PRIMARY KEY (identity, part)) WITHOUT ROWID;"
    "CREATE TABLE view (identity TEXT NOT NULL, name TEXT NOT NULL, query TEXT NOT NULL,"
    " time INTEGER NOT NULL, PRIMARY KEY (identity, name)) WITHOUT ROWID;";

typedef struct store {
    wire_database d; /* db NULL: there is no file yet, so nothing in it */
    const kh_model_info *model;
    char shape[160];
} store;

/* time() may be some milliseconds behind, on the wrong side of a second that others have seen begin. */
static int64_t seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec;
}

/* ---- opening and closing */

static void name_shape(store *s)
{
    const kh_model_info *m = s->model;
    snprintf(s->shape, sizeof s->shape,
             "%.30s layers=%d width=%d heads=%d/%d head_width=%d ff=%d experts=%d vocabulary=%d",
             m->architecture, m->layers, m->width, m->heads, m->key_heads, m->head_width,
             m->ff_width, m->experts, m->vocabulary);
}

/* Begins a transaction. READING and CHANGING what does not exist leaves db NULL. Behind a success: wire_database_close. */
static kh_status open_store(store *s, const wire_labels *at, enum wire_access access)
{
    static const wire_database_form form = {"labels", APPLICATION, 1, schema};
    sqlite3_stmt *statement;
    *s = (store){.model = kh_model_get_info(at->model)};
    if (!at->path) KH_FAIL(KH_ERR_UNSUPPORTED, "labels have no file here: --labels FILE names one");
    name_shape(s);
    KH_TRY(wire_database_open(&s->d, at->path, &form, access));
    if (access != WIRE_WRITING) return KH_OK;
    kh_status status = wire_prepare(&statement, &s->d,
                                    "INSERT OR REPLACE INTO model VALUES (?1, ?2, ?3)", "ttt",
                                    s->model->identity, s->model->name, s->shape);
    if (status == KH_OK) status = wire_finish(&s->d, statement);
    return status == KH_OK ? KH_OK : wire_database_close(&s->d, status);
}

/* ---- rows in JSON */

/* The row's three columns, under the names of the first two. */
static json_t *row_json(sqlite3_stmt *statement, const char *key, const char *value)
{
    return json_pack("{s:o, s:o, s:I}", key, wire_column(statement, 0), value,
                     wire_column(statement, 1), "time",
                     (json_int_t)sqlite3_column_int64(statement, 2));
}

/* Appends all rows; a fourth column is "from". Of rows with the same key, the first. Takes the statement. */
static kh_status list_rows(const store *s, sqlite3_stmt *statement, const char *key,
                           const char *value, json_t *list)
{
    int row = 1, from = sqlite3_column_count(statement) > 3;
    kh_status status = KH_OK;
    while (status == KH_OK && (status = wire_step(&s->d, statement, &row)) == KH_OK && row) {
        json_t *one = row_json(statement, key, value);
        const json_t *last = json_array_get(list, json_array_size(list) - 1);
        int again = from && one &&
                    json_equal(json_object_get(one, key), json_object_get(last, key));
        if (from && one) json_object_set_new(one, "from", wire_column(statement, 3));
        if (again)
            json_decref(one);
        else if (json_array_append_new(list, one) != 0)
            status = kh_fail(KH_ERR_MEMORY, "no memory for labels");
    }
    sqlite3_finalize(statement);
    return status;
}

/* {name: list}; takes the list. */
static kh_status wrap(json_t **out, kh_status status, const char *name, json_t *list)
{
    *out = status == KH_OK ? json_pack("{s:O}", name, list) : NULL;
    json_decref(list);
    if (status == KH_OK && !*out) KH_FAIL(KH_ERR_MEMORY, "no memory for labels");
    return status;
}

/* ---- labels */

static const char own_labels[] =
    "SELECT part, text, time FROM label WHERE identity = ?1 AND text <> '' ORDER BY part";
static const char offered_labels[] =
    "SELECT l.part, l.text, l.time, l.identity FROM label l JOIN model m ON m.identity = l.identity"
    " WHERE m.name = ?2 AND m.name <> '' AND m.shape = ?3 AND l.identity <> ?1 AND l.text <> ''"
    " AND NOT EXISTS (SELECT 1 FROM label o WHERE o.identity = ?1 AND o.part = l.part)"
    " ORDER BY l.part, l.time DESC, l.identity";

kh_status wire_labels_list(const wire_labels *at, json_t **out)
{
    store s;
    sqlite3_stmt *statement;
    json_t *list = json_array();
    kh_status status = open_store(&s, at, WIRE_READING);
    if (status == KH_OK && s.d.db) {
        status = wire_prepare(&statement, &s.d, own_labels, "t", s.model->identity);
        if (status == KH_OK) status = list_rows(&s, statement, "part", "text", list);
        if (status == KH_OK)
            status = wire_prepare(&statement, &s.d, offered_labels, "ttt", s.model->identity,
                                  s.model->name, s.shape);
        if (status == KH_OK) status = list_rows(&s, statement, "part", "text", list);
        status = wire_database_close(&s.d, status);
    }
    return wrap(out, status, "labels", list);
}

/* The members of a label: its part as the library writes it, its text. */
static kh_status read_label(const wire_labels *at, const json_t *body, char part[KH_COMPONENT_TEXT],
                            const char **text)
{
    kh_component component;
    const char *name = NULL;
    size_t size = 0;
    *text = NULL;
    KH_TRY(wire_get_text(body, "part", &name, NULL));
    if (!name) KH_FAIL(KH_ERR_ARGUMENT, "part: a part such as L12N345 or L5H3 is expected");
    KH_TRY(kh_component_parse(&component, at->model, name));
    KH_TRY(wire_get_text(body, "text", text, &size));
    if (!*text) KH_FAIL(KH_ERR_ARGUMENT, "text: a label is expected, or \"\" to take it away");
    if (size > TEXT) KH_FAIL(KH_ERR_ARGUMENT, "text: %zu bytes, at most %d are kept", size, TEXT);
    kh_component_text(&component, part, KH_COMPONENT_TEXT);
    return KH_OK;
}

kh_status wire_labels_put(const wire_labels *at, const json_t *body, json_t **out)
{
    char part[KH_COMPONENT_TEXT];
    const char *text;
    store s;
    sqlite3_stmt *statement;
    int row = 0;
    *out = NULL;
    KH_TRY(read_label(at, body, part, &text));
    KH_TRY(open_store(&s, at, WIRE_WRITING));
    kh_status status = wire_prepare(
        &statement, &s.d,
        "INSERT INTO label VALUES (?1, ?2, ?3, ?4) ON CONFLICT (identity, part) DO UPDATE"
        " SET text = excluded.text, time = max(excluded.time, time + 1)",
        "ttti", s.model->identity, part, text, seconds_now());
    if (status == KH_OK) status = wire_finish(&s.d, statement);
    if (status == KH_OK)
        status =
            wire_prepare(&statement, &s.d,
                         "SELECT part, text, time FROM label WHERE identity = ?1 AND part = ?2",
                         "tt", s.model->identity, part);
    if (status == KH_OK) {
        status = wire_step(&s.d, statement, &row);
        if (row && !(*out = row_json(statement, "part", "text")))
            status = kh_fail(KH_ERR_MEMORY, "no memory for a label");
        sqlite3_finalize(statement);
    }
    status = wire_database_close(&s.d, status);
    if (status != KH_OK) json_decref(*out);
    if (status != KH_OK) *out = NULL;
    return status;
}

/* ---- the file of lines */

static int append(const char *bytes, size_t n, void *context)
{
    return kh_buf_add(context, bytes, n) == KH_OK ? 0 : -1;
}

static const char own_views[] =
    "SELECT name, query, time FROM view WHERE identity = ?1 ORDER BY name";

static kh_status write_lines(const store *s, const char *sql, const char *key, const char *value,
                             kh_buf *out)
{
    sqlite3_stmt *statement;
    int row = 0;
    kh_status status = wire_prepare(&statement, &s->d, sql, "t", s->model->identity);
    while (status == KH_OK && (status = wire_step(&s->d, statement, &row)) == KH_OK && row) {
        json_t *one = row_json(statement, key, value);
        if (!one || json_dump_callback(one, append, out, WIRE_FORM) != 0)
            status = kh_fail(KH_ERR_MEMORY, "no memory for labels");
        if (status == KH_OK) status = kh_buf_text(out, "\n");
        json_decref(one);
    }
    sqlite3_finalize(statement);
    return status;
}

kh_status wire_labels_export(const wire_labels *at, kh_buf *out)
{
    store s;
    KH_TRY(open_store(&s, at, WIRE_READING));
    if (!s.d.db) return KH_OK;
    kh_status status = write_lines(&s, own_labels, "part", "text", out);
    if (status == KH_OK) status = write_lines(&s, own_views, "view", "query", out);
    return wire_database_close(&s.d, status);
}

static kh_status check_name(const char *name)
{
    size_t characters = 0, n = strlen(name);
    json_t *valid = wire_text(name, n);
    if (!valid) KH_FAIL(KH_ERR_MEMORY, "no memory for the name of a view");
    int good = strcmp(json_string_value(valid), name) == 0;
    json_decref(valid);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)name[i];
        characters += (c & 0xc0) != 0x80;
        good &= c >= 0x20 && c != 0x7f;
    }
    if (!good || characters == 0)
        KH_FAIL(KH_ERR_ARGUMENT, "the name of a view is a text without control characters");
    if (characters > NAME)
        KH_FAIL(KH_ERR_ARGUMENT, "the name of a view has %zu characters, at most %d are kept",
                characters, NAME);
    return KH_OK;
}

/* The query of a view, which has such a name. */
static kh_status read_view(const char *name, const json_t *body, const char **query)
{
    size_t size = 0;
    *query = NULL;
    KH_TRY(check_name(name));
    KH_TRY(wire_get_text(body, "query", query, &size));
    if (!*query || (*query)[0] != '?')
        KH_FAIL(KH_ERR_ARGUMENT,
                "query: what follows the page's address is expected: \"?prompt=...\"");
    if (size > QUERY)
        KH_FAIL(KH_ERR_ARGUMENT, "query: %zu bytes, at most %d are kept", size, QUERY);
    return KH_OK;
}

/* Within the transaction that may have added some. */
static kh_status check_views(const store *s)
{
    int64_t count = 0;
    KH_TRY(wire_number(&s->d, "SELECT count(*) FROM view", &count));
    if (count <= VIEWS) return KH_OK;
    KH_FAIL(KH_ERR_ARGUMENT, "%d views are kept in %s: one must be deleted first", VIEWS,
            s->d.file);
}

static const char merge_label[] =
    "INSERT INTO label VALUES (?1, ?2, ?3, ?4) ON CONFLICT (identity, part) DO UPDATE SET"
    " text = excluded.text, time = excluded.time WHERE excluded.time > time OR"
    " (excluded.time = time AND excluded.text > text)";
static const char merge_view[] =
    "INSERT INTO view VALUES (?1, ?2, ?3, ?4) ON CONFLICT (identity, name) DO UPDATE SET"
    " query = excluded.query, time = excluded.time WHERE excluded.time > time OR"
    " (excluded.time = time AND excluded.query > query)";

/* Counts the line in counts[0], a label, or counts[1], a view. */
static kh_status merge_line(const store *s, const wire_labels *at, const char *line, size_t size,
                            int64_t now, json_int_t counts[2])
{
    char part[KH_COMPONENT_TEXT];
    const char *text, *view = NULL;
    json_error_t error;
    sqlite3_stmt *statement;
    int64_t when = now;
    wire_begin();
    json_t *one = json_loadb(line, size, 0, &error);
    kh_status status = KH_OK;
    if (!one && wire_is_short()) KH_FAIL(KH_ERR_MEMORY, "no memory for a label");
    if (!json_is_object(one))
        status =
            kh_fail(KH_ERR_ARGUMENT,
                    "{\"part\": \"L12N345\", \"text\": \"...\", \"time\": ...} is expected%s%s",
                    one ? "" : ": ", one ? "" : error.text);
    if (status == KH_OK) status = wire_get_text(one, "view", &view, NULL);
    if (status == KH_OK)
        status = view ? read_view(view, one, &text) : read_label(at, one, part, &text);
    if (status == KH_OK) status = wire_get_int(one, "time", &when, 0, (int64_t)1 << 53);
    if (status == KH_OK)
        status = wire_prepare(&statement, &s->d, view ? merge_view : merge_label, "ttti",
                              s->model->identity, view ? view : part, text, when);
    if (status == KH_OK) status = wire_finish(&s->d, statement);
    counts[view != NULL]++;
    json_decref(one);
    return status;
}

kh_status wire_labels_import(const wire_labels *at, const char *text, size_t size, json_t **out)
{
    store s;
    json_int_t counts[2] = {0, 0}, line = 1;
    int64_t now = seconds_now();
    *out = NULL;
    KH_TRY(open_store(&s, at, WIRE_WRITING));
    int before = sqlite3_total_changes(s.d.db);
    kh_status status = KH_OK;
    for (size_t i = 0; i < size && status == KH_OK; line++) {
        const char *end = memchr(text + i, '\n', size - i);
        size_t n = end ? (size_t)(end - text) - i : size - i, blank = 0;
        while (blank < n && strchr(" \t\r", text[i + blank]) && text[i + blank]) blank++;
        if (blank < n) {
            status = merge_line(&s, at, text + i, n, now, counts);
            if (status != KH_OK) kh_fail_context(status, "line %lld", (long long)line);
        }
        i += n + 1;
    }
    json_int_t changed = sqlite3_total_changes(s.d.db) - before;
    if (status == KH_OK) status = check_views(&s);
    KH_TRY(wire_database_close(&s.d, status));
    *out = json_pack("{s:I, s:I, s:I}", "labels", counts[0], "views", counts[1], "changed",
                     changed);
    if (!*out) KH_FAIL(KH_ERR_MEMORY, "no memory for the answer");
    return KH_OK;
}

/* ---- views */

static kh_status no_view(const char *name)
{
    KH_FAIL(KH_ERR_NOT_FOUND, "there is no view \"%.320s\"", name);
}

kh_status wire_views_list(const wire_labels *at, json_t **out)
{
    store s;
    sqlite3_stmt *statement;
    json_t *list = json_array();
    kh_status status = open_store(&s, at, WIRE_READING);
    if (status == KH_OK && s.d.db) {
        status = wire_prepare(&statement, &s.d, own_views, "t", s.model->identity);
        if (status == KH_OK) status = list_rows(&s, statement, "name", "query", list);
        status = wire_database_close(&s.d, status);
    }
    return wrap(out, status, "views", list);
}

kh_status wire_views_get(const wire_labels *at, const char *name, json_t **out)
{
    store s;
    sqlite3_stmt *statement;
    int row = 0;
    *out = NULL;
    KH_TRY(check_name(name));
    KH_TRY(open_store(&s, at, WIRE_READING));
    if (!s.d.db) return no_view(name);
    kh_status status = wire_prepare(
        &statement, &s.d, "SELECT name, query, time FROM view WHERE identity = ?1 AND name = ?2",
        "tt", s.model->identity, name);
    if (status == KH_OK) {
        status = wire_step(&s.d, statement, &row);
        if (row) *out = row_json(statement, "name", "query");
        sqlite3_finalize(statement);
    }
    status = wire_database_close(&s.d, status);
    if (status == KH_OK && !row) return no_view(name);
    if (status == KH_OK && !*out) KH_FAIL(KH_ERR_MEMORY, "no memory for a view");
    return status;
}

kh_status wire_views_put(const wire_labels *at, const char *name, const json_t *body, json_t **out)
{
    store s;
    sqlite3_stmt *statement;
    const char *query = NULL;
    int64_t now = seconds_now();
    *out = NULL;
    KH_TRY(read_view(name, body, &query));
    KH_TRY(open_store(&s, at, WIRE_WRITING));
    kh_status status = wire_prepare(&statement, &s.d,
                                    "INSERT OR REPLACE INTO view VALUES (?1, ?2, ?3, ?4)", "ttti",
                                    s.model->identity, name, query, now);
    if (status == KH_OK) status = wire_finish(&s.d, statement);
    if (status == KH_OK) status = check_views(&s);
    KH_TRY(wire_database_close(&s.d, status));
    *out = json_pack("{s:s, s:s, s:I}", "name", name, "query", query, "time", (json_int_t)now);
    if (!*out) KH_FAIL(KH_ERR_MEMORY, "no memory for a view");
    return KH_OK;
}

kh_status wire_views_delete(const wire_labels *at, const char *name, json_t **out)
{
    store s;
    sqlite3_stmt *statement;
    *out = NULL;
    KH_TRY(check_name(name));
    KH_TRY(open_store(&s, at, WIRE_CHANGING));
    if (!s.d.db) return no_view(name);
    kh_status status = wire_prepare(&statement, &s.d,
                                    "DELETE FROM view WHERE identity = ?1 AND name = ?2", "tt",
                                    s.model->identity, name);
    if (status == KH_OK) status = wire_finish(&s.d, statement);
    int gone = status == KH_OK && sqlite3_changes(s.d.db) > 0;
    KH_TRY(wire_database_close(&s.d, status));
    if (!gone) return no_view(name);
    *out = json_pack("{s:s, s:b}", "name", name, "deleted", 1);
    if (!*out) KH_FAIL(KH_ERR_MEMORY, "no memory for the answer");
    return KH_OK;
}

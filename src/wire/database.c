/* Files of SQLite.
 *
 * A file is opened for each call: that costs a tenth of a millisecond, and leaves no handle to share between threads,
 * none to be stale behind a fork or a restored backup. Changes take the write lock at their begin (BEGIN IMMEDIATE),
 * because a reader that becomes a writer cannot wait for another one. A file with another application's number is never
 * touched. All SQL is constant; values are bound. SQLite has its own heap, as libmicrohttpd has.
 *
 * Sentences name the file without its folder: they travel to clients. */
#include "wire/database.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "wire/json_value.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATIENCE = 5000 /* ms */ };

/* ---- statements */

static kh_status wrong(const wire_database *d)
{
    int code = sqlite3_errcode(d->db) & 0xff;
    kh_status status = code == SQLITE_NOMEM                              ? KH_ERR_MEMORY
                       : code == SQLITE_NOTADB || code == SQLITE_CORRUPT ? KH_ERR_FORMAT
                       : code == SQLITE_BUSY || code == SQLITE_LOCKED    ? KH_ERR_STATE
                                                                         : KH_ERR_IO;
    if (strstr(sqlite3_errmsg(d->db), "no such module"))
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s need a SQLite with FTS5, which this one (%s) is without",
                d->form->what, sqlite3_libversion());
    KH_FAIL(status, "%s in %s: %s", d->form->what, d->file, sqlite3_errmsg(d->db));
}

static int bind(sqlite3_stmt *statement, const char *types, va_list values)
{
    int code = SQLITE_OK;
    for (int i = 0; code == SQLITE_OK && types[i]; i++) {
        if (types[i] == 't') {
            code = sqlite3_bind_text(statement, i + 1, va_arg(values, const char *), -1,
                                     SQLITE_TRANSIENT);
        } else if (types[i] == 'i') {
            code = sqlite3_bind_int64(statement, i + 1, va_arg(values, int64_t));
        } else {
            const void *bytes = va_arg(values, const void *);
            code = sqlite3_bind_blob64(statement, i + 1, bytes, va_arg(values, size_t),
                                       SQLITE_TRANSIENT);
        }
    }
    return code;
}

kh_status wire_prepare(sqlite3_stmt **out, const wire_database *d, const char *sql,
                       const char *types, ...)
{
    va_list values;
    int code = sqlite3_prepare_v2(d->db, sql, -1, out, NULL);
    va_start(values, types);
    if (code == SQLITE_OK) code = bind(*out, types, values);
    va_end(values);
    if (code == SQLITE_OK) return KH_OK;
    kh_status status = wrong(d);
    sqlite3_finalize(*out);
    *out = NULL;
    return status;
}

kh_status wire_step(const wire_database *d, sqlite3_stmt *statement, int *row)
{
    int code = sqlite3_step(statement);
    *row = code == SQLITE_ROW;
    return code == SQLITE_ROW || code == SQLITE_DONE ? KH_OK : wrong(d);
}

kh_status wire_finish(const wire_database *d, sqlite3_stmt *statement)
{
    int row;
    kh_status status = wire_step(d, statement, &row);
    sqlite3_finalize(statement);
    return status;
}

kh_status wire_number(const wire_database *d, const char *sql, int64_t *out)
{
    sqlite3_stmt *statement;
    int row;
    *out = 0;
    KH_TRY(wire_prepare(&statement, d, sql, ""));
    kh_status status = wire_step(d, statement, &row);
    if (status == KH_OK && row) *out = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return status;
}

kh_status wire_command(const wire_database *d, const char *sql)
{
    return sqlite3_exec(d->db, sql, NULL, NULL, NULL) == SQLITE_OK ? KH_OK : wrong(d);
}

json_t *wire_column(sqlite3_stmt *statement, int at)
{
    const char *text = (const char *)sqlite3_column_text(statement, at);
    return text ? wire_text(text, (size_t)sqlite3_column_bytes(statement, at)) : NULL;
}

/* ---- opening and closing */

/* The folders above a file; and the file, that nobody else may read. mknod, because whoever opens and closes a file loses
 * the locks that other threads of the process have on it. */
static kh_status make_file(const wire_database *d, const char *path)
{
    char *copy = kh_strdup(path);
    if (!copy) KH_FAIL(KH_ERR_MEMORY, "no memory for a path");
    int failed = 0;
    for (char *slash = copy; !failed && (slash = strchr(slash + 1, '/'));) {
        *slash = 0;
        failed = mkdir(copy, 0700) != 0 && errno != EEXIST;
        *slash = '/';
    }
    failed = failed || (mknod(copy, S_IFREG | 0600, 0) != 0 && errno != EEXIST);
    int why = errno;
    kh_free(copy);
    if (failed)
        KH_FAIL(KH_ERR_IO, "%s in %s: the file cannot be written: %s", d->form->what, d->file,
                strerror(why));
    return KH_OK;
}

/* Is it a file of ours, or an empty one that may become one? *empty: the latter. */
static kh_status check_file(const wire_database *d, int *empty)
{
    int64_t application, version, tables;
    KH_TRY(wire_number(d, "PRAGMA application_id", &application));
    KH_TRY(wire_number(d, "PRAGMA user_version", &version));
    KH_TRY(wire_number(d, "SELECT count(*) FROM sqlite_master", &tables));
    *empty = tables == 0 && application == 0;
    if (*empty) return KH_OK;
    if (application != d->form->application)
        KH_FAIL(KH_ERR_FORMAT, "%s in %s: this is another program's database", d->form->what,
                d->file);
    if (version != d->form->version)
        KH_FAIL(KH_ERR_FORMAT, "%s in %s: made by a newer keyhole (form %lld, %d is known)",
                d->form->what, d->file, (long long)version, d->form->version);
    return KH_OK;
}

kh_status wire_database_close(wire_database *d, kh_status status)
{
    if (d->db && status == KH_OK) status = wire_command(d, "COMMIT");
    sqlite3_close(d->db); /* rolls back what was not committed */
    d->db = NULL;
    return status;
}

static kh_status make_tables(const wire_database *d)
{
    char own[96];
    snprintf(own, sizeof own, "PRAGMA application_id = %d; PRAGMA user_version = %d;",
             d->form->application, d->form->version);
    KH_TRY(wire_command(d, d->form->schema));
    return wire_command(d, own);
}

static kh_status begin(const wire_database *d, enum wire_access access)
{
    int empty = 0;
    sqlite3_busy_timeout(d->db, PATIENCE);
    KH_TRY(wire_command(d, access == WIRE_READING ? "BEGIN" : "BEGIN IMMEDIATE"));
    KH_TRY(check_file(d, &empty));
    if (empty && access != WIRE_WRITING) return KH_ERR_NOT_FOUND;
    return empty ? make_tables(d) : KH_OK;
}

kh_status wire_database_open(wire_database *d, const char *path, const wire_database_form *form,
                             enum wire_access access)
{
    const char *slash = strrchr(path, '/');
    *d = (wire_database){.form = form};
    snprintf(d->file, sizeof d->file, "%s", slash ? slash + 1 : path);
    if (access == WIRE_WRITING) KH_TRY(make_file(d, path));
    if (faccessat(AT_FDCWD, path, F_OK, 0) != 0 && (errno == ENOENT || errno == ENOTDIR))
        return KH_OK;
    int flags = access == WIRE_READING ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE;
    kh_status status = KH_OK;
    if (sqlite3_open_v2(path, &d->db, flags, NULL) != SQLITE_OK)
        status = d->db ? wrong(d) : kh_fail(KH_ERR_MEMORY, "no memory for %s", form->what);
    if (status == KH_OK) status = begin(d, access);
    if (status == KH_OK) return KH_OK;
    sqlite3_close(d->db);
    d->db = NULL;
    return status == KH_ERR_NOT_FOUND ? KH_OK : status;
}

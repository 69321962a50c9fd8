/* wire/database.h: files of SQLite: one transaction a call, statements with bound values, and failures as sentences. Only
 * where the program was built with SQLite. */
#ifndef KH_WIRE_DATABASE_H
#define KH_WIRE_DATABASE_H

#include <jansson.h>
#include <keyhole/status.h>
#include <sqlite3.h>
#include <stdint.h>

enum wire_access {
    WIRE_READING,
    WIRE_CHANGING, /* what is there */
    WIRE_WRITING   /* and makes the file and its folders */
};

/* What a file is. One with another application number is somebody else's and never touched. */
typedef struct wire_database_form {
    const char *what; /* "labels": how sentences begin */
    int application, version;
    const char *schema;
} wire_database_form;

typedef struct wire_database {
    sqlite3 *db;   /* NULL: there is no file yet, or nothing in it */
    char file[96]; /* its name without the folder: sentences travel to clients */
    const wire_database_form *form;
} wire_database;

/* Begins a transaction. READING and CHANGING what does not exist leave db NULL and succeed. On failure nothing is open. */
kh_status wire_database_open(wire_database *out, const char *path, const wire_database_form *form,
                             enum wire_access access);
/* Ends it: what it did stays when `status` is good. Returns `status`, or why that failed. */
kh_status wire_database_close(wire_database *d, kh_status status);

/* `types` has a letter for each value: t a text, i an int64_t, b bytes (const void *, size_t). */
kh_status wire_prepare(sqlite3_stmt **out, const wire_database *d, const char *sql,
                       const char *types, ...);
/* *row: 1 while there is one. */
kh_status wire_step(const wire_database *d, sqlite3_stmt *statement, int *row);
/* Runs a statement without rows to its end, and forgets it. */
kh_status wire_finish(const wire_database *d, sqlite3_stmt *statement);
/* The first number of the first row; 0 where there is none. */
kh_status wire_number(const wire_database *d, const char *sql, int64_t *out);
kh_status wire_command(const wire_database *d, const char *sql);
/* A text of the row; NULL where it has none. */
json_t *wire_column(sqlite3_stmt *statement, int at);

#endif

/* base/opt.h: option tables. One table per command is its parser, its help, its manual page and its
 * completion, so that they cannot disagree. Layer 0: writes into buffers, prints nothing. */
#ifndef KH_BASE_OPT_H
#define KH_BASE_OPT_H

#include "base/buf.h"

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

typedef enum kh_opt_kind {
    KH_OPT_FLAG,   /* int: becomes 1 */
    KH_OPT_INT,    /* int64_t in [least, most] */
    KH_OPT_REAL,   /* double in [least, most] */
    KH_OPT_TEXT,   /* const char *: a part of argv; the last use counts */
    KH_OPT_CHOICE, /* int: index into `choices`, in capitals or small letters */
    KH_OPT_TEXTS,  /* kh_opt_texts: each use adds one */
    KH_OPT_INTS, /* kh_opt_ints: "512,128", each in [least, most]; each use adds. Where `argument` is two
                      words, two arguments belong to a use: "A B" */
    /* Known from other programs, without effect here; collected in kh_opt_result.ignored. With
     * `choices`, the next argument belongs to it only if it is one of them. */
    KH_OPT_IGNORED
} kh_opt_kind;

typedef struct kh_opt_texts {
    const char **items; /* [count], parts of argv */
    size_t count;
} kh_opt_texts;

typedef struct kh_opt_ints {
    int64_t *items; /* [count] */
    size_t count;
} kh_opt_ints;

typedef struct kh_opt {
    kh_opt_kind kind;
    const char *names;          /* every spelling, one space between: "-p --prompt" */
    const char *argument;       /* how help names the value; "FILE" and "MODEL" complete to files */
    const char *help;           /* a sentence that begins small and has no full stop */
    size_t offset;              /* of the value in the command's struct */
    const char *initial;        /* NULL, or the value before the command line; shown as default */
    double least, most;         /* both 0: any value of the type; HUGE_VAL: no upper end */
    const char *const *choices; /* ends with NULL */
    const char *environment;    /* NULL, or a variable that is read before the command line */
} kh_opt;

typedef struct kh_opt_group {
    const char *title;     /* "Sampling" */
    const kh_opt *options; /* ends with an entry whose names are NULL */
} kh_opt_group;

typedef struct kh_opt_command {
    const char *name;             /* "run", "bench recall" */
    const char *does;             /* half a sentence for the list of commands */
    const char *words;            /* positional arguments as usage shows them: "[MODEL] [PROMPT]" */
    size_t most_words;            /* how many there may be; (size_t)-1 without limit */
    const char *about;            /* paragraphs, separated by "\n\n" */
    const char *example;          /* command lines, separated by "\n"; may be NULL */
    const kh_opt_group *groups;   /* ends with a group whose title is NULL */
    void (*preset)(void *values); /* NULL, or changes the shared tables' initial values */
} kh_opt_command;

typedef struct kh_opt_result {
    const char **words; /* [word_count] positional arguments, parts of argv */
    size_t word_count;
    int help;       /* -h or --help was met: nothing behind it was looked at */
    kh_buf ignored; /* spellings of the KH_OPT_IGNORED options that were used: "-ngl, -fa" */
} kh_opt_result;

/* Sets `values` (the command's struct, zeroed by the caller) from the initial values, the
 * environment and argv[0 .. argc), in this order. A wrong option is KH_ERR_ARGUMENT; the sentence
 * names the option, the value and what is allowed. Accepts "--name=value", "--name value" and
 * "-x value"; everything behind "--" is positional. Call kh_opt_free in either case. */
kh_status kh_opt_parse(const kh_opt_command *command, void *values, int argc, char *const *argv,
                       kh_opt_result *result);
void kh_opt_free(const kh_opt_command *command, void *values, kh_opt_result *result);

/* Appends "PROGRAM NAME [options] WORDS". */
kh_status kh_opt_usage(kh_buf *out, const char *program, const kh_opt_command *command);
/* Appends the help page, wrapped at `width` columns. */
kh_status kh_opt_help(kh_buf *out, const char *program, const kh_opt_command *command,
                      size_t width);
/* Appends the manual page (section 1, in the man macros of roff). `version` goes into its foot. */
kh_status kh_opt_man(kh_buf *out, const char *program, const kh_opt_command *command,
                     const char *version);
/* Appends a text, wrapped at `width`, its first line at column `column`, later ones behind `indent`
 * spaces; ends without a line feed. */
kh_status kh_opt_wrap(kh_buf *out, const char *text, size_t column, size_t indent, size_t width);

/* Walks the spellings of an option: *at starts as option->names; returns the length of the next
 * spelling and moves *at behind it, or 0 at the end. */
size_t kh_opt_spelling(const char **at, const char **name);
/* How many single-character edits (insert, delete, replace, swap of neighbours) turn a into b;
 * texts longer than 63 bytes count as far apart. */
size_t kh_opt_distance(const char *a, size_t a_size, const char *b, size_t b_size);

#endif

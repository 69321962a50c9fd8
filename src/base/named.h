/* base/named.h: settings that are written NAME[:name=value,...], each kind read from one table. Layer 0. */
#ifndef KH_BASE_NAMED_H
#define KH_BASE_NAMED_H

#include <keyhole/status.h>
#include <stddef.h>

typedef enum kh_named_kind { KH_NAMED_REAL, KH_NAMED_WHOLE, KH_NAMED_WORD } kh_named_kind;

typedef struct kh_named_value {
    const char *name; /* NULL ends the table */
    kh_named_kind kind;
    size_t offset;            /* of a double in the caller's struct */
    double initial;           /* NAN: must be given */
    double least, most;       /* HUGE_VAL: no upper end */
    const char *const *words; /* of KH_NAMED_WORD, NULL ends them: the value is an index */
} kh_named_value;

typedef struct kh_named_form {
    const char *name;             /* NULL ends the table */
    const kh_named_value *values; /* NULL: it has none */
} kh_named_form;

/* Reads a whole setting: *form becomes the index of its form, and all values of that form are set in `to`. `what` says
 * what is read ("schedule"). KH_ERR_ARGUMENT names the text, the place and what is allowed there. */
kh_status kh_named_parse(int *form, void *to, const char *text, const char *what,
                         const kh_named_form *forms);
/* For readers with values of their own kinds: cuts the next "name=value" off *rest, which is NULL behind the last. */
kh_status kh_named_cut(char **rest, char **name, char **value, const char *text, const char *what);
/* Reads "name=value,..." alone (NULL: nothing is given) into the values of a form; `text` is the whole for sentences. */
kh_status kh_named_values(void *to, const char *given, const kh_named_form *form, const char *text,
                          const char *what);

#endif

/* Settings written NAME[:name=value,...]: the reader.
 *
 *     cosine:warmup=100,floor=0.1
 *     ^form  ^value     ^value
 *
 * A kind of setting is a table of forms, a form a table of values: name, range, what it is unless given.
 * All values are doubles, whole ones included (exact up to 2^53), so a table needs no types and a struct
 * that is filled needs no code. A sentence quotes the whole text, because it may stand in a list or a
 * configuration file, and says what would be allowed. */
#include "base/named.h"

#include "base/fail.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_VALUES = 32, MOST_LIST = 256 };

static int is(const char *word, size_t size, const char *name)
{
    return strlen(name) == size && memcmp(word, name, size) == 0;
}

/* Appends ", name". */
static void list(char *out, const char *name)
{
    size_t used = strlen(out);
    snprintf(out + used, MOST_LIST - used, "%s%s", used ? ", " : "", name);
}

static void range_text(char *out, size_t room, const kh_named_value *v)
{
    const char *kind = v->kind == KH_NAMED_WHOLE ? "a whole number" : "a number";
    if (isinf(v->most))
        snprintf(out, room, "%s from %.15g", kind, v->least);
    else
        snprintf(out, room, "%s from %.15g to %.15g", kind, v->least, v->most);
}

static kh_status set_word(double *to, const kh_named_value *v, const char *value, size_t size,
                          const char *text, const char *what)
{
    char allowed[MOST_LIST] = "";
    for (int i = 0; v->words[i]; i++) {
        list(allowed, v->words[i]);
        if (!is(value, size, v->words[i])) continue;
        *to = i;
        return KH_OK;
    }
    KH_FAIL(KH_ERR_ARGUMENT, "%s '%s': %s=%.*s is not allowed, %s must be one of %s", what, text,
            v->name, (int)size, value, v->name, allowed);
}

static kh_status set(double *to, const kh_named_value *v, const char *value, size_t size,
                     const char *text, const char *what)
{
    if (v->kind == KH_NAMED_WORD) return set_word(to, v, value, size, text, what);
    char word[64], allowed[128], *end = word;
    double number = 0;
    if (size < sizeof word) {
        memcpy(word, value, size);
        word[size] = 0;
        number = strtod(word, &end);
    }
    int starts = size > 0 && (isdigit((unsigned char)*value) || strchr("+-.", *value));
    if (!starts || end == word || *end || !isfinite(number) || number < v->least ||
        number > v->most || (v->kind == KH_NAMED_WHOLE && number != floor(number))) {
        range_text(allowed, sizeof allowed, v);
        KH_FAIL(KH_ERR_ARGUMENT, "%s '%s': %s=%.*s is not allowed, %s must be %s", what, text,
                v->name, (int)size, value, v->name, allowed);
    }
    *to = number;
    return KH_OK;
}

static kh_status no_equals(const char *item, size_t size, const char *text, const char *what)
{
    KH_FAIL(KH_ERR_ARGUMENT, "%s '%s': '%.*s' has no '=': parameters are name=value", what, text,
            (int)size, item);
}

kh_status kh_named_cut(char **rest, char **name, char **value, const char *text, const char *what)
{
    *name = strsep(rest, ",");
    *value = strchr(*name, '=');
    if (!*value) return no_equals(*name, strlen(*name), text, what);
    *(*value)++ = 0;
    return KH_OK;
}

static const kh_named_value *find(const kh_named_form *form, const char *word, size_t size)
{
    const kh_named_value *v = form->values;
    while (v && v->name && !is(word, size, v->name)) v++;
    return v && v->name ? v : NULL;
}

static kh_status no_value(const kh_named_form *form, const char *word, size_t size,
                          const char *text, const char *what)
{
    char names[MOST_LIST] = "";
    for (const kh_named_value *v = form->values; v && v->name; v++) list(names, v->name);
    KH_FAIL(KH_ERR_ARGUMENT, "%s '%s': %s has no parameter '%.*s' (it has: %s)", what, text,
            form->name, (int)size, word, *names ? names : "none");
}

kh_status kh_named_values(void *to, const char *given, const kh_named_form *form, const char *text,
                          const char *what)
{
    unsigned seen = 0;
    for (const kh_named_value *v = form->values; v && v->name; v++)
        *(double *)(void *)((char *)to + v->offset) = v->initial;
    for (const char *at = given; at;) {
        size_t size = strcspn(at, ","), name = strcspn(at, "=,");
        if (at[name] != '=') return no_equals(at, size, text, what);
        const kh_named_value *v = find(form, at, name);
        if (!v) return no_value(form, at, name, text, what);
        unsigned bit = 1u << (v - form->values) % MOST_VALUES;
        if (seen & bit) KH_FAIL(KH_ERR_ARGUMENT, "%s '%s': %s is given twice", what, text, v->name);
        seen |= bit;
        KH_TRY(set((double *)(void *)((char *)to + v->offset), v, at + name + 1, size - name - 1,
                   text, what));
        at = at[size] ? at + size + 1 : NULL;
    }
    for (const kh_named_value *v = form->values; v && v->name; v++)
        if (isnan(*(double *)(void *)((char *)to + v->offset)))
            KH_FAIL(KH_ERR_ARGUMENT, "%s '%s': %s needs %s", what, text, form->name, v->name);
    return KH_OK;
}

kh_status kh_named_parse(int *form, void *to, const char *text, const char *what,
                         const kh_named_form *forms)
{
    char names[MOST_LIST] = "";
    size_t size = strcspn(text, ":");
    for (int i = 0; forms[i].name; i++) {
        list(names, forms[i].name);
        if (!is(text, size, forms[i].name)) continue;
        *form = i;
        return kh_named_values(to, text[size] ? text + size + 1 : NULL, &forms[i], text, what);
    }
    KH_FAIL(KH_ERR_ARGUMENT, "%s '%s': nothing is called '%.*s' (%s)", what, text, (int)size, text,
            names);
}

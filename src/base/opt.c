/* Option tables: parsing.
 *
 * A command describes its options once, as data: spellings, kind, range, help, and the offset of the
 * value in the command's own struct. Parsing writes through the offset, so a table is constant,
 * shared between commands, and needs no code per option; help, manual pages and completion
 * (opt_help.c, cli/completion.c) read the same table.
 *
 * Rules. Spellings are matched whole: no abbreviations, which would change meaning when an option is
 * added, and no glued short options, because "-ctk" and "-ngl" are names of the field. An option
 * with an argument takes the next word whatever it looks like, so "-n -1" and "-p --hello" work.
 * Initial values are texts that pass through the same checks as the command line: a default outside
 * its own range fails every test. Values stay within argv; only lists allocate.
 *
 * A wrong word is answered with the nearest spelling when few edits lead to it (optimal string
 * alignment: a swap of two neighbours is one edit, the commonest slip of fingers). */
#include "base/opt.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

size_t kh_opt_spelling(const char **at, const char **name)
{
    *name = *at;
    size_t n = strcspn(*at, " ");
    *at += n + ((*at)[n] == ' ');
    return n;
}

size_t kh_opt_distance(const char *a, size_t a_size, const char *b, size_t b_size)
{
    enum { MOST = 63 };
    if (a_size > MOST || b_size > MOST) return a_size + b_size;
    size_t rows[3][MOST + 1];
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= b_size; j++) last[j] = before[j] = j;
    for (size_t i = 1; i <= a_size; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_size; j++) {
            size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best) best = last[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }
        size_t *oldest = before;
        before = last;
        last = row;
        row = oldest;
    }
    return last[b_size];
}

static const kh_opt *find(const kh_opt_command *command, const char *word, size_t size)
{
    for (const kh_opt_group *group = command->groups; group->title; group++)
        for (const kh_opt *option = group->options; option->names; option++) {
            const char *at = option->names, *name;
            for (size_t n; (n = kh_opt_spelling(&at, &name)) > 0;)
                if (n == size && memcmp(name, word, n) == 0) return option;
        }
    return NULL;
}

static kh_status unknown(const kh_opt_command *command, const char *word, size_t size)
{
    const char *nearest = "--help";
    size_t nearest_size = strlen(nearest), least = kh_opt_distance(word, size, nearest, 6);
    for (const kh_opt_group *group = command->groups; group->title; group++)
        for (const kh_opt *option = group->options; option->names; option++) {
            const char *at = option->names, *name;
            for (size_t n; (n = kh_opt_spelling(&at, &name)) > 0;) {
                size_t distance = kh_opt_distance(word, size, name, n);
                if (distance < least) {
                    least = distance;
                    nearest = name;
                    nearest_size = n;
                }
            }
        }
    if (least <= 1 + size / 5 && size > 2)
        KH_FAIL(KH_ERR_ARGUMENT, "%.*s: unknown option; did you mean %.*s?", (int)size, word,
                (int)nearest_size, nearest);
    KH_FAIL(KH_ERR_ARGUMENT, "%.*s: unknown option", (int)size, word);
}

static int ranged(const kh_opt *option)
{
    return option->least < option->most || option->least > option->most;
}

static kh_status outside(const kh_opt *option, const char *name, const char *value, int is_number)
{
    const char *type = option->kind == KH_OPT_REAL ? "number" : "whole number";
    if (!ranged(option)) KH_FAIL(KH_ERR_ARGUMENT, "%s: '%s' is not a %s", name, value, type);
    if (!is_number && isinf(option->most))
        KH_FAIL(KH_ERR_ARGUMENT, "%s: '%s' is not a %s of at least %.15g", name, value, type,
                option->least);
    if (!is_number)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: '%s' is not a %s between %.15g and %.15g", name, value, type,
                option->least, option->most);
    if (isinf(option->most))
        KH_FAIL(KH_ERR_ARGUMENT, "%s: %s is not at least %.15g", name, value, option->least);
    KH_FAIL(KH_ERR_ARGUMENT, "%s: %s is not between %.15g and %.15g", name, value, option->least,
            option->most);
}

static int starts_number(const char *text)
{
    return isdigit((unsigned char)*text) ||
           ((*text == '-' || *text == '+' || *text == '.') && text[1] != 0);
}

static kh_status read_int(int64_t *out, const kh_opt *option, const char *name, const char *value)
{
    char *end;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    if (!starts_number(value) || *end) return outside(option, name, value, 0);
    double real = (double)number;
    if (errno == ERANGE || (ranged(option) && (real < option->least || real > option->most)))
        return outside(option, name, value, 1);
    *out = number;
    return KH_OK;
}

static kh_status read_real(double *out, const kh_opt *option, const char *name, const char *value)
{
    char *end;
    double number = strtod(value, &end);
    if (!starts_number(value) || *end || !isfinite(number)) return outside(option, name, value, 0);
    if (ranged(option) && (number < option->least || number > option->most))
        return outside(option, name, value, 1);
    *out = number;
    return KH_OK;
}

static kh_status read_ints(kh_opt_ints *out, const kh_opt *option, const char *name,
                           const char *value)
{
    for (const char *at = value;;) {
        char word[32];
        size_t n = strcspn(at, ",");
        if (n == 0 || n >= sizeof word)
            KH_FAIL(KH_ERR_ARGUMENT, "%s: '%s' is not a list of whole numbers such as 512,128",
                    name, value);
        memcpy(word, at, n);
        word[n] = 0;
        int64_t number = 0;
        KH_TRY(read_int(&number, option, name, word));
        int64_t *grown = kh_realloc(out->items, (out->count + 1) * sizeof *grown);
        if (!grown) KH_FAIL(KH_ERR_MEMORY, "no memory for the values of %s", name);
        out->items = grown;
        grown[out->count++] = number;
        if (!at[n]) return KH_OK;
        at += n + 1;
    }
}

static kh_status add_text(kh_opt_texts *out, const char *name, const char *value)
{
    const char **grown = kh_realloc(out->items, (out->count + 1) * sizeof *grown);
    if (!grown) KH_FAIL(KH_ERR_MEMORY, "no memory for the values of %s", name);
    out->items = grown;
    grown[out->count++] = value;
    return KH_OK;
}

static int choice_of(const kh_opt *option, const char *value)
{
    for (int i = 0; option->choices[i]; i++)
        if (strcasecmp(option->choices[i], value) == 0) return i;
    return -1;
}

static kh_status read_choice(int *out, const kh_opt *option, const char *name, const char *value)
{
    int index = choice_of(option, value);
    if (index >= 0) {
        *out = index;
        return KH_OK;
    }
    char allowed[256] = "";
    size_t used = 0;
    for (int i = 0; option->choices[i] && used < sizeof allowed; i++) {
        int n = snprintf(allowed + used, sizeof allowed - used, "%s%s", i ? ", " : "",
                         option->choices[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    KH_FAIL(KH_ERR_ARGUMENT, "%s: '%s' is not one of %s", name, value, allowed);
}

static kh_status store(const kh_opt *option, void *values, const char *name, const char *value)
{
    void *to = (char *)values + option->offset;
    switch (option->kind) {
    case KH_OPT_FLAG: *(int *)to = 1; return KH_OK;
    case KH_OPT_INT: return read_int(to, option, name, value);
    case KH_OPT_REAL: return read_real(to, option, name, value);
    case KH_OPT_TEXT: *(const char **)to = value; return KH_OK;
    case KH_OPT_CHOICE: return read_choice(to, option, name, value);
    case KH_OPT_TEXTS: return add_text(to, name, value);
    case KH_OPT_INTS: return read_ints(to, option, name, value);
    case KH_OPT_IGNORED: return KH_OK;
    }
    return KH_OK;
}

static kh_status set_defaults(const kh_opt_command *command, void *values)
{
    for (const kh_opt_group *group = command->groups; group->title; group++)
        for (const kh_opt *option = group->options; option->names; option++)
            if (option->initial) KH_TRY(store(option, values, option->names, option->initial));
    if (command->preset) command->preset(values);
    for (const kh_opt_group *group = command->groups; group->title; group++)
        for (const kh_opt *option = group->options; option->names; option++) {
            const char *value = option->environment ? getenv(option->environment) : NULL;
            if (value && *value && option->kind != KH_OPT_FLAG)
                KH_TRY(store(option, values, option->environment, value));
        }
    return KH_OK;
}

static kh_status note_ignored(kh_opt_result *result, const char *name)
{
    if (result->ignored.size) KH_TRY(kh_buf_text(&result->ignored, ", "));
    return kh_buf_text(&result->ignored, name);
}

/* One option at argv[*i]; moves *i over a value that stands in a word of its own. */
static kh_status take_option(const kh_opt_command *command, void *values, int argc,
                             char *const *argv, int *i, kh_opt_result *result)
{
    const char *word = argv[*i], *equals = word[1] == '-' ? strchr(word, '=') : NULL;
    size_t size = equals ? (size_t)(equals - word) : strlen(word);
    const kh_opt *option = find(command, word, size);
    if (!option) return unknown(command, word, size);
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)size, word);
    const char *value = equals ? equals + 1 : NULL, *next = *i + 1 < argc ? argv[*i + 1] : NULL;
    if (option->kind == KH_OPT_IGNORED) KH_TRY(note_ignored(result, name));
    int takes = option->argument != NULL;
    if (option->kind == KH_OPT_IGNORED && option->choices && !value)
        takes = next && choice_of(option, next) >= 0;
    if (!takes && value) KH_FAIL(KH_ERR_ARGUMENT, "%s: takes no value, found '%s'", name, value);
    if (takes && !value) {
        if (!next) KH_FAIL(KH_ERR_ARGUMENT, "%s: a value is missing (%s)", name, option->argument);
        value = next;
        ++*i;
    }
    KH_TRY(store(option, values, name, value));
    int pair = option->kind == KH_OPT_INTS && strchr(option->argument, ' ') && !strchr(value, ',');
    if (!pair) return KH_OK;
    if (*i + 1 >= argc)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: a second value is missing (%s)", name, option->argument);
    return store(option, values, name, argv[++*i]);
}

kh_status kh_opt_parse(const kh_opt_command *command, void *values, int argc, char *const *argv,
                       kh_opt_result *result)
{
    *result = (kh_opt_result){0};
    KH_TRY(kh_new(&result->words, (size_t)argc + 1, sizeof *result->words, "the command line"));
    KH_TRY(set_defaults(command, values));
    int only_words = 0;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (!only_words && strcmp(word, "--") == 0) {
            only_words = 1;
        } else if (!only_words && (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0)) {
            result->help = 1;
            return KH_OK;
        } else if (!only_words && word[0] == '-' && word[1]) {
            KH_TRY(take_option(command, values, argc, argv, &i, result));
        } else if (result->word_count == command->most_words) {
            KH_FAIL(KH_ERR_ARGUMENT, "'%s': one argument too many (expected: %s)", word,
                    command->most_words ? command->words : "options only");
        } else {
            result->words[result->word_count++] = word;
        }
    }
    return KH_OK;
}

void kh_opt_free(const kh_opt_command *command, void *values, kh_opt_result *result)
{
    for (const kh_opt_group *group = command->groups; group->title; group++)
        for (const kh_opt *option = group->options; option->names; option++) {
            void *to = (char *)values + option->offset;
            if (option->kind == KH_OPT_TEXTS) {
                kh_free(((kh_opt_texts *)to)->items);
                *(kh_opt_texts *)to = (kh_opt_texts){0};
            } else if (option->kind == KH_OPT_INTS) {
                kh_free(((kh_opt_ints *)to)->items);
                *(kh_opt_ints *)to = (kh_opt_ints){0};
            }
        }
    kh_free(result->words);
    kh_buf_free(&result->ignored);
    *result = (kh_opt_result){0};
}

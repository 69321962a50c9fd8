/* Rules for layers: one line of text becomes a table of numbers, each the number of a setting.
 *
 *     at   [phases][layers of all stacks][heads]
 *
 * The text is split at ';'. A piece that starts with the word of a stack ("encoder=") or a phase ("prefill=")
 * changes what the following pieces speak of; without such a word every rule speaks of all. What is left
 * starts with a digit or '*' and is RANGE=SETTING, or is a bare SETTING for all layers, which must be the
 * only one of its stack and phase, because a bare one among others is usually a forgotten range.
 *
 * A model with an encoder has two or three stacks of layers, whose rows lie behind one another in the table.
 *
 * A mistake is reported with the piece it stands in and what would be allowed there; the caller adds
 * the option's name. Numbers are read by strtol and must be consumed whole. */
#include "run/rules.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PHASES = 2, MAX_NUMBER = 1 << 24 };

static const char *const stack_words[KH_RULES_STACKS] = {"encoder=", "decoder=", "cross="};
static const char *const phase_words[PHASES] = {"prefill=", "decode="};

/* What the pieces speak of that follow. */
typedef struct scope {
    int phase[2], stack[2]; /* first and last */
    size_t bare, rules, pieces;
    unsigned seen;   /* phases */
    unsigned stacks; /* seen */
} scope;

typedef struct parser {
    const kh_rules *rules;
    const char *text;
    uint16_t *at;
    scope in;
} parser;

int kh_rules_count(int *out, const char *text, int least)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || errno || value < least || value > MAX_NUMBER)
        return 0;
    *out = (int)value;
    return 1;
}

static size_t rows_before(const kh_rules *r, int stack)
{
    size_t rows = 0;
    for (int s = 0; s < stack; s++) rows += (size_t)r->layers[s];
    return rows;
}

static size_t columns(const kh_rules *r)
{
    return r->heads > 0 ? (size_t)r->heads : 1;
}

size_t kh_rules_size(const kh_rules *r)
{
    for (int s = 0; s < r->stacks; s++)
        if (r->layers[s] < 1) return 0;
    return (size_t)r->phases * rows_before(r, r->stacks) * columns(r);
}

/* "3", "0-1", "2-" or "*" into [first, last]. */
static kh_status parse_range(const parser *p, int range[2], char *text, int count, const char *what,
                             const char *piece)
{
    range[0] = 0;
    range[1] = count - 1;
    if (strcmp(text, "*") == 0) return KH_OK;
    char *dash = strchr(text, '-');
    if (dash) *dash++ = 0;
    if (!kh_rules_count(&range[0], text, 0) ||
        (dash && *dash && !kh_rules_count(&range[1], dash, 0)))
        KH_FAIL(KH_ERR_ARGUMENT, "%s '%s': %ss are written 3, 0-1, 2- or *", p->rules->what, piece,
                what);
    if (!dash) range[1] = range[0];
    if (range[0] >= count || range[1] >= count)
        KH_FAIL(KH_ERR_ARGUMENT, "%s '%s': there is no %s %d, the model has 0-%d", p->rules->what,
                piece, what, range[0] >= count ? range[0] : range[1], count - 1);
    if (range[0] > range[1])
        KH_FAIL(KH_ERR_ARGUMENT, "%s '%s': the %s range %d-%d runs backwards", p->rules->what,
                piece, what, range[0], range[1]);
    return KH_OK;
}

static int most_layers(const parser *p)
{
    int most = 0;
    for (int s = p->in.stack[0]; s <= p->in.stack[1]; s++)
        if (p->rules->layers[s] > most) most = p->rules->layers[s];
    return most;
}

static void set_layer(const parser *p, size_t row, const int head[2], uint16_t index)
{
    const kh_rules *r = p->rules;
    for (int phase = p->in.phase[0]; phase <= p->in.phase[1]; phase++)
        for (int h = head[0]; h <= head[1]; h++)
            p->at[((size_t)phase * rows_before(r, r->stacks) + row) * columns(r) + (size_t)h] =
                index;
}

/* One piece without its words. */
static kh_status parse_rule(parser *p, char *text)
{
    char piece[KH_RULES_TEXT + 1];
    const kh_rules *r = p->rules;
    memcpy(piece, text, strlen(text) + 1);
    int layers = most_layers(p), layer[2] = {0, layers - 1}, head[2] = {0, (int)columns(r) - 1};
    if (isdigit((unsigned char)text[0]) || text[0] == '*') {
        char *setting = strchr(text, '=');
        if (!setting)
            KH_FAIL(KH_ERR_ARGUMENT, "%s '%s': layers without a setting (%s)", r->what, piece,
                    r->rules);
        *setting++ = 0;
        char *heads = r->heads > 0 ? strchr(text, '.') : NULL;
        if (heads) *heads++ = 0;
        KH_TRY(parse_range(p, layer, text, layers, "layer", piece));
        if (heads) KH_TRY(parse_range(p, head, heads, r->heads, "head", piece));
        text = setting;
    } else {
        ++p->in.bare;
    }
    uint16_t index = 0;
    KH_TRY(r->parse(r->context, &index, text, piece));
    for (int s = p->in.stack[0]; s <= p->in.stack[1]; s++)
        for (int l = layer[0]; l <= layer[1] && l < r->layers[s]; l++)
            set_layer(p, rows_before(r, s) + (size_t)l, head, index);
    return KH_OK;
}

/* Which of the words a piece starts with, or -1; *piece moves behind it. */
static int take_word(char **piece, const char *const *words, int count)
{
    for (int i = 0; i < count; i++) {
        size_t n = strlen(words[i]);
        if (strncmp(*piece, words[i], n) != 0) continue;
        *piece += n;
        return i;
    }
    return -1;
}

/* Turns to another stack where the piece says so. */
static kh_status parse_stack(parser *p, char **piece)
{
    const kh_rules *r = p->rules;
    int s = take_word(piece, stack_words, KH_RULES_STACKS);
    if (s < 0) return KH_OK;
    int letters = (int)strlen(stack_words[s]) - 1;
    if (r->stacks == 1)
        KH_FAIL(KH_ERR_ARGUMENT, "%s '%s': the model has one stack of layers, not %.*s", r->what,
                p->text, letters, stack_words[s]);
    if (s >= r->stacks)
        KH_FAIL(KH_ERR_ARGUMENT, "%s '%s': there is none in %.*s, only in encoder and decoder",
                r->what, p->text, letters, stack_words[s]);
    if ((p->in.pieces > 0 && !p->in.stacks) || p->in.stacks >> s & 1)
        KH_FAIL(KH_ERR_ARGUMENT, "%s '%s': %s start the text and stand once each", r->what, p->text,
                r->stacks > 2 ? "'encoder=', 'decoder=' and 'cross='"
                              : "'encoder=' and 'decoder='");
    p->in = (scope){.phase = {0, r->phases - 1}, .stack = {s, s}, .stacks = p->in.stacks | 1u << s};
    return KH_OK;
}

/* The same for phases. */
static kh_status parse_phase(parser *p, char **piece)
{
    int phase = take_word(piece, phase_words, PHASES);
    if (phase < 0) return KH_OK;
    if (p->rules->phases == 1)
        KH_FAIL(KH_ERR_ARGUMENT,
                "%s '%s': one setting serves prompts and answers, '%s' is not known",
                p->rules->what, p->text, phase_words[phase]);
    if ((p->in.pieces > 0 && !p->in.seen) || p->in.seen >> phase & 1)
        KH_FAIL(KH_ERR_ARGUMENT,
                "%s '%s': 'prefill=' and 'decode=' start the text and stand once each",
                p->rules->what, p->text);
    p->in.seen |= 1u << phase;
    p->in.phase[0] = p->in.phase[1] = phase;
    p->in.bare = p->in.rules = 0;
    return KH_OK;
}

static kh_status parse(parser *p, char *rest)
{
    const kh_rules *r = p->rules;
    for (char *piece = strsep(&rest, ";"); piece; piece = strsep(&rest, ";")) {
        KH_TRY(parse_stack(p, &piece));
        KH_TRY(parse_phase(p, &piece));
        if (!*piece)
            KH_FAIL(KH_ERR_ARGUMENT, "%s '%s': an empty setting (%s ...)", r->what, p->text,
                    r->setting);
        KH_TRY(parse_rule(p, piece));
        p->in.pieces++;
        if (++p->in.rules > 1 && p->in.bare > 0)
            KH_FAIL(KH_ERR_ARGUMENT, "%s '%s': of several settings each needs its layers (%s)",
                    r->what, p->text, r->rules);
    }
    return KH_OK;
}

kh_status kh_rules_parse(uint16_t *at, const kh_rules *rules, const char *text)
{
    parser p = {.rules = rules, .text = text, .at = at};
    p.in = (scope){.phase = {0, rules->phases - 1}, .stack = {0, rules->stacks - 1}};
    if (strlen(text) > KH_RULES_TEXT)
        KH_FAIL(KH_ERR_ARGUMENT, "the %s setting has %zu characters, at most %d are allowed",
                rules->what, strlen(text), KH_RULES_TEXT);
    char *work = kh_strdup(text);
    if (!work) KH_FAIL(KH_ERR_MEMORY, "no memory for the %s setting", rules->what);
    kh_status status = parse(&p, work);
    kh_free(work);
    return status;
}

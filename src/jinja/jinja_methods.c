/* Methods of chat templates' values: str, dict, list and the loop, as Python has them.
 *
 * All of a string's are here that a template can use without changing anything; of lists and
 * dictionaries only those that read (jinja_ops.c refuses the others by name). Texts that come
 * out are pieces of texts that went in, so each byte keeps its origin. */
#include "jinja/jinja_call.h"

#include "base/fail.h"

#include <string.h>
#include <utf8proc.h>

static kh_jtext self(const kh_jcall *c)
{
    return *c->self.s;
}

static int given(const kh_jcall *c, int n)
{
    return c->arg[n].kind != KH_J_ABSENT && c->arg[n].kind != KH_J_NONE;
}

static kh_status add_piece(kh_jcall *c, kh_jval *list, kh_jtext text, size_t start, size_t end)
{
    kh_jval piece;
    KH_TRY(kh_jval_text(c->run, &piece, kh_jtext_cut(text, start, end)));
    return kh_jlist_add(c->run, list->list, piece);
}

/* ---- ends ---- */

static kh_status strip_sides(kh_jcall *c, kh_jval *out, int sides)
{
    kh_jtext set;
    KH_TRY(kh_jrun_count(c->run, self(c).size));
    if (given(c, 0)) KH_TRY(kh_jcall_text(c, 0, &set));
    if (given(c, 0)) KH_TRY(kh_jrun_count(c->run, set.size));
    return kh_jval_text(c->run, out, kh_jtext_strip(self(c), given(c, 0) ? &set : NULL, sides));
}

static kh_status strip(kh_jcall *c, kh_jval *out)
{
    return strip_sides(c, out, KH_J_BOTH);
}

static kh_status lstrip(kh_jcall *c, kh_jval *out)
{
    return strip_sides(c, out, KH_J_LEFT);
}

static kh_status rstrip(kh_jcall *c, kh_jval *out)
{
    return strip_sides(c, out, KH_J_RIGHT);
}

/* The text between the optional start and end of startswith, find and count. */
static kh_status window(kh_jcall *c, int n, size_t *from, kh_jtext *out)
{
    int64_t length, start, end;
    *out = self(c);
    *from = 0;
    KH_TRY(kh_jrun_count(c->run, out->size));
    if (!given(c, n) && !given(c, n + 1)) return KH_OK;
    KH_TRY(kh_jval_length(c->run, c->self, &length));
    KH_TRY(kh_jcall_int(c, n, 0, &start));
    KH_TRY(kh_jcall_int(c, n + 1, length, &end));
    if (start < 0) start = start < -length ? 0 : start + length;
    if (end < 0) end = end < -length ? 0 : end + length;
    if (end > length) end = length;
    if (start > end) start = end;
    *from = kh_jtext_offset(*out, (size_t)start);
    *out = kh_jtext_cut(*out, *from, kh_jtext_offset(*out, (size_t)end));
    return KH_OK;
}

static kh_status one_end(kh_jcall *c, kh_jval *out, int (*holds)(kh_jtext, kh_jtext),
                         const char *name)
{
    kh_jtext text;
    size_t from;
    int found = 0;
    KH_TRY(window(c, 1, &from, &text));
    KH_TRY(kh_jval_need(c->run, c->arg[0]));
    kh_jlist one = {.items = &c->arg[0], .count = 1};
    const kh_jlist *list = c->arg[0].kind == KH_J_TUPLE ? c->arg[0].list : &one;
    for (size_t i = 0; i < list->count && !found; ++i) {
        if (list->items[i].kind != KH_J_STRING)
            KH_FAIL(KH_ERR_FORMAT, "%s first arg must be str or a tuple of str, not %s", name,
                    kh_jval_type(list->items[i]));
        found = holds(text, *list->items[i].s);
    }
    *out = kh_jval_bool(found);
    return KH_OK;
}

static kh_status startswith(kh_jcall *c, kh_jval *out)
{
    return one_end(c, out, kh_jtext_starts, "startswith");
}

static kh_status endswith(kh_jcall *c, kh_jval *out)
{
    return one_end(c, out, kh_jtext_ends, "endswith");
}

static kh_status removeprefix(kh_jcall *c, kh_jval *out)
{
    kh_jtext what, text = self(c);
    KH_TRY(kh_jcall_text(c, 0, &what));
    return kh_jval_text(c->run, out,
                        kh_jtext_cut(text, kh_jtext_starts(text, what) ? what.size : 0, text.size));
}

static kh_status removesuffix(kh_jcall *c, kh_jval *out)
{
    kh_jtext what, text = self(c);
    KH_TRY(kh_jcall_text(c, 0, &what));
    return kh_jval_text(
        c->run, out,
        kh_jtext_cut(text, 0, text.size - (kh_jtext_ends(text, what) ? what.size : 0)));
}

/* ---- finding ---- */

static kh_status find_any(kh_jcall *c, kh_jval *out, int last, int must)
{
    kh_jtext what, text, whole = self(c);
    size_t from;
    KH_TRY(kh_jcall_text(c, 0, &what));
    KH_TRY(window(c, 1, &from, &text));
    KH_TRY(kh_jrun_count(c->run, last ? text.size * (what.size < 64 ? 1 : what.size / 64) : 0));
    size_t at = last ? kh_jtext_find_last(text, what) : kh_jtext_find(text, what, 0);
    if (at == SIZE_MAX && must) KH_FAIL(KH_ERR_FORMAT, "substring not found");
    *out = kh_jval_int(
        at == SIZE_MAX ? -1 : (int64_t)kh_jtext_length(kh_jtext_cut(whole, 0, from + at)));
    return KH_OK;
}

static kh_status find(kh_jcall *c, kh_jval *out)
{
    return find_any(c, out, 0, 0);
}

static kh_status rfind(kh_jcall *c, kh_jval *out)
{
    return find_any(c, out, 1, 0);
}

static kh_status index_of(kh_jcall *c, kh_jval *out)
{
    return find_any(c, out, 0, 1);
}

static kh_status last_index(kh_jcall *c, kh_jval *out)
{
    return find_any(c, out, 1, 1);
}

static kh_status count(kh_jcall *c, kh_jval *out)
{
    kh_jtext what, text;
    size_t from;
    int64_t n = 0;
    KH_TRY(kh_jcall_text(c, 0, &what));
    KH_TRY(window(c, 1, &from, &text));
    if (!what.size) n = (int64_t)kh_jtext_length(text) + 1;
    for (size_t at = 0; what.size && (at = kh_jtext_find(text, what, at)) != SIZE_MAX;
         at += what.size)
        ++n;
    *out = kh_jval_int(n);
    return KH_OK;
}

/* ---- taking apart and putting together ---- */

/* Behind the white space, or behind the word, that begins at `at`. */
static size_t skip(kh_jtext text, size_t at, int space)
{
    while (at < text.size && kh_jchar_space(kh_jtext_code(text, at)) == space)
        at += kh_jtext_step(text, at);
    return at;
}

static kh_status split_words(kh_jcall *c, kh_jval *out, int64_t most)
{
    kh_jtext text = self(c);
    for (size_t at = skip(text, 0, 1); at < text.size; --most) {
        size_t end = most ? skip(text, at, 0) : text.size;
        KH_TRY(add_piece(c, out, text, at, end));
        at = skip(text, end, 1);
    }
    return KH_OK;
}

static kh_status split(kh_jcall *c, kh_jval *out)
{
    kh_jtext between, text = self(c);
    int64_t most;
    KH_TRY(kh_jcall_int(c, 1, -1, &most));
    KH_TRY(kh_jrun_count(c->run, text.size));
    KH_TRY(kh_jval_list(c->run, out, KH_J_LIST, 0));
    if (!given(c, 0)) return split_words(c, out, most);
    KH_TRY(kh_jcall_text(c, 0, &between));
    if (!between.size) KH_FAIL(KH_ERR_FORMAT, "empty separator");
    size_t start = 0;
    for (size_t at; most != 0 && (at = kh_jtext_find(text, between, start)) != SIZE_MAX; --most) {
        KH_TRY(add_piece(c, out, text, start, at));
        start = at + between.size;
    }
    return add_piece(c, out, text, start, text.size);
}

static void turn_round(kh_jlist *list)
{
    for (size_t i = 0; i < list->count / 2; ++i) {
        kh_jval swap = list->items[i];
        list->items[i] = list->items[list->count - 1 - i];
        list->items[list->count - 1 - i] = swap;
    }
}

/* From the end; where the word that ends at `end` begins. */
static size_t word_start(kh_jtext text, size_t end)
{
    while (end > 0) {
        size_t at = end - 1;
        while (at > 0 && (text.data[at] & 0xC0) == 0x80) --at;
        if (kh_jchar_space(kh_jtext_code(text, at))) break;
        end = at;
    }
    return end;
}

static kh_status rsplit(kh_jcall *c, kh_jval *out)
{
    kh_jtext between = {0}, text = self(c);
    int64_t most;
    KH_TRY(kh_jcall_int(c, 1, -1, &most));
    if (most < 0) return split(c, out);
    KH_TRY(kh_jrun_count(c->run, text.size));
    KH_TRY(kh_jval_list(c->run, out, KH_J_LIST, 0));
    if (given(c, 0)) KH_TRY(kh_jcall_text(c, 0, &between));
    if (given(c, 0) && !between.size) KH_FAIL(KH_ERR_FORMAT, "empty separator");
    size_t end = text.size;
    while (between.size && most-- > 0) {
        size_t at = kh_jtext_find_last(kh_jtext_cut(text, 0, end), between);
        if (at == SIZE_MAX) break;
        KH_TRY(kh_jrun_count(c->run, (end - at) * (between.size / 64 + 1)));
        KH_TRY(add_piece(c, out, text, at + between.size, end));
        end = at;
    }
    if (given(c, 0)) KH_TRY(add_piece(c, out, text, 0, end));
    while (!given(c, 0)) {
        end = kh_jtext_strip(kh_jtext_cut(text, 0, end), NULL, KH_J_RIGHT).size;
        if (!end) break;
        size_t at = most-- > 0 ? word_start(text, end) : 0;
        KH_TRY(add_piece(c, out, text, at, end));
        end = at;
    }
    turn_round(out->list);
    return KH_OK;
}

static int ends_line(uint32_t c)
{
    return (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
}

static kh_status splitlines(kh_jcall *c, kh_jval *out)
{
    kh_jtext text = self(c);
    KH_TRY(kh_jrun_count(c->run, text.size));
    KH_TRY(kh_jval_list(c->run, out, KH_J_LIST, 0));
    for (size_t start = 0, at = 0; start < text.size; start = at) {
        for (at = start; at < text.size && !ends_line(kh_jtext_code(text, at));)
            at += kh_jtext_step(text, at);
        size_t end = at;
        if (at < text.size) {
            int pair = text.data[at] == '\r' && at + 1 < text.size && text.data[at + 1] == '\n';
            at += pair ? 2 : kh_jtext_step(text, at);
        }
        KH_TRY(add_piece(c, out, text, start, kh_jcall_truth(c, 0, 0) ? at : end));
    }
    return KH_OK;
}

static kh_status part(kh_jcall *c, kh_jval *out, int last)
{
    kh_jtext between, text = self(c);
    KH_TRY(kh_jcall_text(c, 0, &between));
    if (!between.size) KH_FAIL(KH_ERR_FORMAT, "empty separator");
    KH_TRY(kh_jrun_count(c->run, text.size * (last ? between.size / 64 + 1 : 1)));
    size_t at = last ? kh_jtext_find_last(text, between) : kh_jtext_find(text, between, 0);
    KH_TRY(kh_jval_list(c->run, out, KH_J_TUPLE, 3));
    if (at == SIZE_MAX) {
        if (last) KH_TRY(add_piece(c, out, text, 0, 0));
        if (last) KH_TRY(add_piece(c, out, text, 0, 0));
        KH_TRY(add_piece(c, out, text, 0, text.size));
        if (!last) KH_TRY(add_piece(c, out, text, 0, 0));
        return last ? KH_OK : add_piece(c, out, text, 0, 0);
    }
    KH_TRY(add_piece(c, out, text, 0, at));
    KH_TRY(add_piece(c, out, text, at, at + between.size));
    return add_piece(c, out, text, at + between.size, text.size);
}

static kh_status partition(kh_jcall *c, kh_jval *out)
{
    return part(c, out, 0);
}

static kh_status rpartition(kh_jcall *c, kh_jval *out)
{
    return part(c, out, 1);
}

static kh_status replace(kh_jcall *c, kh_jval *out)
{
    kh_jtext old, new, text = self(c);
    kh_jout result = {.run = c->run};
    int64_t most;
    KH_TRY(kh_jcall_text(c, 0, &old));
    KH_TRY(kh_jcall_text(c, 1, &new));
    KH_TRY(kh_jcall_int(c, 2, -1, &most));
    KH_TRY(kh_jrun_count(c->run, text.size));
    size_t start = 0;
    for (size_t from = 0, at; most != 0 && (at = kh_jtext_find(text, old, from)) != SIZE_MAX;
         --most) {
        KH_TRY(kh_jout_add(&result, kh_jtext_cut(text, start, at)));
        KH_TRY(kh_jout_join(&result, new, text.markup));
        start = from = at + old.size;
        if (old.size) continue;
        if (at == text.size)
            break; /* nothing is replaced in front of each character, and at the end */
        from += kh_jtext_step(text, at);
    }
    KH_TRY(kh_jout_add(&result, kh_jtext_cut(text, start, text.size)));
    return kh_jout_markup(&result, out, text.markup);
}

static kh_status join(kh_jcall *c, kh_jval *out)
{
    kh_jlist items;
    kh_jout result = {.run = c->run};
    KH_TRY(kh_jval_iterate(c->run, c->arg[0], &items));
    for (size_t i = 0; i < items.count; ++i) {
        KH_TRY(kh_jval_need(c->run, items.items[i]));
        if (items.items[i].kind != KH_J_STRING)
            KH_FAIL(KH_ERR_FORMAT, "sequence item %zu: expected str instance, %s found", i,
                    kh_jval_type(items.items[i]));
        if (i) KH_TRY(kh_jout_add(&result, self(c)));
        KH_TRY(kh_jout_join(&result, *items.items[i].s, self(c).markup));
    }
    return kh_jout_markup(&result, out, self(c).markup);
}

static kh_status format(kh_jcall *c, kh_jval *out)
{
    return kh_jtext_format(c->run, self(c), c->all, out);
}

/* ---- shape ---- */

static kh_status in_case(kh_jcall *c, kh_jval *out, enum kh_jcase how)
{
    kh_jout result = {.run = c->run};
    KH_TRY(kh_jout_case(&result, self(c), how));
    return kh_jout_markup(&result, out, self(c).markup);
}

static kh_status upper(kh_jcall *c, kh_jval *out)
{
    return in_case(c, out, KH_J_UPPER);
}

static kh_status lower(kh_jcall *c, kh_jval *out)
{
    return in_case(c, out, KH_J_LOWER);
}

static kh_status title(kh_jcall *c, kh_jval *out)
{
    return in_case(c, out, KH_J_TITLE);
}

static kh_status capitalize(kh_jcall *c, kh_jval *out)
{
    return in_case(c, out, KH_J_CAPITAL);
}

static kh_status swapcase(kh_jcall *c, kh_jval *out)
{
    return in_case(c, out, KH_J_SWAP);
}

/* Pads to a width in characters; `left` of 2 parts of what is missing go in front. */
static kh_status pad(kh_jcall *c, kh_jval *out, int left)
{
    kh_jtext fill = kh_jtext_of(" ");
    kh_jout result = {.run = c->run};
    int64_t width, length;
    KH_TRY(kh_jcall_int(c, 0, 0, &width));
    if (c->arg[1].kind != KH_J_ABSENT) KH_TRY(kh_jcall_text(c, 1, &fill));
    if (kh_jtext_length(fill) != 1)
        KH_FAIL(KH_ERR_FORMAT, "The fill character must be exactly one character long");
    KH_TRY(kh_jval_length(c->run, c->self, &length));
    int64_t spare = width > length ? width - length : 0;
    int64_t front = left == 1 ? spare / 2 + (spare & width & 1) : left ? spare : 0;
    for (int64_t i = 0; i < front; ++i) KH_TRY(kh_jout_add(&result, fill));
    KH_TRY(kh_jout_add(&result, self(c)));
    for (int64_t i = front; i < spare; ++i) KH_TRY(kh_jout_add(&result, fill));
    return kh_jout_markup(&result, out, self(c).markup);
}

static kh_status ljust(kh_jcall *c, kh_jval *out)
{
    return pad(c, out, 0);
}

static kh_status center(kh_jcall *c, kh_jval *out)
{
    return pad(c, out, 1);
}

static kh_status rjust(kh_jcall *c, kh_jval *out)
{
    return pad(c, out, 2);
}

static kh_status zfill(kh_jcall *c, kh_jval *out)
{
    kh_jtext text = self(c);
    kh_jout result = {.run = c->run};
    int64_t width, length;
    KH_TRY(kh_jcall_int(c, 0, 0, &width));
    KH_TRY(kh_jval_length(c->run, c->self, &length));
    size_t sign = text.size && (text.data[0] == '-' || text.data[0] == '+');
    KH_TRY(kh_jout_add(&result, kh_jtext_cut(text, 0, sign)));
    for (; length < width; ++length) KH_TRY(kh_jout_word(&result, "0"));
    KH_TRY(kh_jout_add(&result, kh_jtext_cut(text, sign, text.size)));
    return kh_jout_markup(&result, out, text.markup);
}

/* ---- asking ---- */

enum { LETTER = 1, DIGIT = 2, NUMERAL = 4, SPACE = 8, UPPER_CASE = 16, LOWER_CASE = 32 };

static unsigned class_of(uint32_t c)
{
    utf8proc_category_t kind = utf8proc_category((utf8proc_int32_t)c);
    unsigned is = kh_jchar_space(c) ? SPACE : 0;
    if (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO) is |= LETTER;
    if (kind == UTF8PROC_CATEGORY_ND) is |= DIGIT;
    if (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO) is |= NUMERAL;
    if (kind == UTF8PROC_CATEGORY_LU) is |= UPPER_CASE;
    if (kind == UTF8PROC_CATEGORY_LL) is |= LOWER_CASE;
    return is;
}

/* Every character is one of `every`, or: none is of `never` and one is of `every` (cased
 * letters). */
static kh_status all_are(kh_jcall *c, kh_jval *out, unsigned every, unsigned never)
{
    kh_jtext text = self(c);
    int some = 0, good = 1;
    KH_TRY(kh_jrun_count(c->run, text.size));
    for (size_t at = 0; at < text.size; at += kh_jtext_step(text, at)) {
        unsigned is = class_of(kh_jtext_code(text, at));
        some |= (is & every) != 0;
        good &= never ? !(is & never) : (is & every) != 0;
    }
    *out = kh_jval_bool(some && good);
    return KH_OK;
}

static kh_status letters(kh_jcall *c, kh_jval *out)
{
    return all_are(c, out, LETTER, 0);
}

static kh_status decimals(kh_jcall *c, kh_jval *out)
{
    return all_are(c, out, DIGIT, 0);
}

static kh_status numerals(kh_jcall *c, kh_jval *out)
{
    return all_are(c, out, NUMERAL, 0);
}

static kh_status words(kh_jcall *c, kh_jval *out)
{
    return all_are(c, out, LETTER | NUMERAL, 0);
}

static kh_status blanks(kh_jcall *c, kh_jval *out)
{
    return all_are(c, out, SPACE, 0);
}

static kh_status capitals(kh_jcall *c, kh_jval *out)
{
    return all_are(c, out, UPPER_CASE, LOWER_CASE);
}

static kh_status smalls(kh_jcall *c, kh_jval *out)
{
    return all_are(c, out, LOWER_CASE, UPPER_CASE);
}

const kh_jdef kh_jmethods_text[] = {
    {"strip", "?chars", strip},
    {"lstrip", "?chars", lstrip},
    {"rstrip", "?chars", rstrip},
    {"split", "?sep ?maxsplit", split},
    {"rsplit", "?sep ?maxsplit", rsplit},
    {"splitlines", "?keepends", splitlines},
    {"partition", "sep", partition},
    {"rpartition", "sep", rpartition},
    {"startswith", "prefix ?start ?end", startswith},
    {"endswith", "suffix ?start ?end", endswith},
    {"removeprefix", "prefix", removeprefix},
    {"removesuffix", "suffix", removesuffix},
    {"find", "sub ?start ?end", find},
    {"rfind", "sub ?start ?end", rfind},
    {"index", "sub ?start ?end", index_of},
    {"rindex", "sub ?start ?end", last_index},
    {"count", "sub ?start ?end", count},
    {"replace", "old new ?count", replace},
    {"join", "iterable", join},
    {"format", NULL, format},
    {"upper", "", upper},
    {"lower", "", lower},
    {"title", "", title},
    {"capitalize", "", capitalize},
    {"swapcase", "", swapcase},
    {"ljust", "width ?fillchar", ljust},
    {"rjust", "width ?fillchar", rjust},
    {"center", "width ?fillchar", center},
    {"zfill", "width", zfill},
    {"isalpha", "", letters},
    {"isdigit", "", decimals},
    {"isdecimal", "", decimals},
    {"isnumeric", "", numerals},
    {"isalnum", "", words},
    {"isspace", "", blanks},
    {"isupper", "", capitals},
    {"islower", "", smalls},
    {0},
};

/* ---- dictionaries, lists, the loop ---- */

enum { KEYS = 1, VALUES = 2 };

static kh_status view(kh_jcall *c, kh_jval *out, int what)
{
    const kh_jdict *dict = c->self.dict;
    KH_TRY(kh_jval_list(c->run, out, KH_J_VIEW, dict->count));
    out->list->name = what == KEYS ? "dict_keys" : what == VALUES ? "dict_values" : "dict_items";
    for (size_t i = 0; i < dict->count; ++i) {
        kh_jval item = what == KEYS ? dict->entries[i].key : dict->entries[i].value;
        if (what == (KEYS | VALUES)) {
            KH_TRY(kh_jval_list(c->run, &item, KH_J_TUPLE, 2));
            KH_TRY(kh_jlist_add(c->run, item.list, dict->entries[i].key));
            KH_TRY(kh_jlist_add(c->run, item.list, dict->entries[i].value));
        }
        KH_TRY(kh_jlist_add(c->run, out->list, item));
    }
    return KH_OK;
}

static kh_status keys(kh_jcall *c, kh_jval *out)
{
    return view(c, out, KEYS);
}

static kh_status values(kh_jcall *c, kh_jval *out)
{
    return view(c, out, VALUES);
}

static kh_status items(kh_jcall *c, kh_jval *out)
{
    return view(c, out, KEYS | VALUES);
}

static kh_status get(kh_jcall *c, kh_jval *out)
{
    KH_TRY(kh_jdict_find(c->run, c->self.dict, c->arg[0], out));
    if (out->kind == KH_J_ABSENT) *out = c->arg[1].kind == KH_J_ABSENT ? kh_jval_none() : c->arg[1];
    return KH_OK;
}

static kh_status same(kh_jcall *c, kh_jval *out)
{
    *out = c->self; /* nothing changes it */
    return KH_OK;
}

const kh_jdef kh_jmethods_dict[] = {
    {"get", "key ?default", get}, {"items", "", items}, {"keys", "", keys},
    {"values", "", values},       {"copy", "", same},   {0},
};

static kh_status position(kh_jcall *c, kh_jval *out)
{
    for (size_t i = 0; i < c->self.list->count; ++i) {
        int equal;
        KH_TRY(kh_jval_equal(c->run, c->self.list->items[i], c->arg[0], &equal));
        *out = kh_jval_int((int64_t)i);
        if (equal) return KH_OK;
    }
    KH_FAIL(KH_ERR_FORMAT, "the value is not in the list");
}

static kh_status occurrences(kh_jcall *c, kh_jval *out)
{
    int64_t n = 0;
    for (size_t i = 0; i < c->self.list->count; ++i) {
        int equal;
        KH_TRY(kh_jval_equal(c->run, c->self.list->items[i], c->arg[0], &equal));
        n += equal;
    }
    *out = kh_jval_int(n);
    return KH_OK;
}

const kh_jdef kh_jmethods_list[] = {
    {"copy", "", same}, {"index", "value", position}, {"count", "value", occurrences}, {0}};

static kh_status cycle(kh_jcall *c, kh_jval *out)
{
    if (!c->all->count) KH_FAIL(KH_ERR_FORMAT, "no items for cycling given");
    *out = c->all->items[c->self.loop->index % c->all->count];
    return KH_OK;
}

static kh_status changed(kh_jcall *c, kh_jval *out)
{
    kh_jloop *loop = c->self.loop;
    kh_jval now;
    int equal = 0;
    KH_TRY(kh_jval_list(c->run, &now, KH_J_TUPLE, 0));
    for (size_t i = 0; i < c->all->count; ++i)
        KH_TRY(kh_jlist_add(c->run, now.list, c->all->items[i]));
    if (loop->before.kind == KH_J_TUPLE) KH_TRY(kh_jval_equal(c->run, loop->before, now, &equal));
    loop->before = now;
    *out = kh_jval_bool(!equal);
    return KH_OK;
}

const kh_jdef kh_jmethods_loop[] = {{"cycle", NULL, cycle}, {"changed", NULL, changed}, {0}};

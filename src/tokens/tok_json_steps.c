/* tokenizer.json: normalizers and pre-tokenizers become steps.
 *
 * A Sequence is its parts, one after the other; BertNormalizer, BertPreTokenizer and ByteLevel are
 * several steps each (tok_norm.c, tok_split.c). A name that is not known is an error that lists
 * the known ones: a tokenizer that leaves a part out would give other ids without a word. */
#include "base/fail.h"
#include "tokens/tok_json.h"
#include "tokens/tok_unicode.h"

#include <string.h>

enum { DEEPEST = 16 };

static kh_status too_deep(const char *what)
{
    KH_FAIL(KH_ERR_UNSUPPORTED, "the %s has sequences inside each other, more than %d deep", what,
            DEEPEST);
}

/* ---- normalizers ---- */

static const char normalizers[] = "Sequence, NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, "
                                  "Replace, Prepend, Precompiled, "
                                  "BertNormalizer, Nmt, ByteLevel";

static kh_status bert(kh_tokenizer *t, const json_t *part)
{
    int clean = 1, ideographs = 1, lower = 1;
    KH_TRY(kh_part_flag(part, "normalizer", "clean_text", &clean));
    KH_TRY(kh_part_flag(part, "normalizer", "handle_chinese_chars", &ideographs));
    KH_TRY(kh_part_flag(part, "normalizer", "lowercase", &lower));
    int accents = lower;
    KH_TRY(kh_part_flag(part, "normalizer", "strip_accents", &accents));
    if (clean) KH_TRY(kh_norm_add(&t->norm, KH_NORM_CLEAN, 0, NULL));
    if (ideographs) KH_TRY(kh_norm_add(&t->norm, KH_NORM_IDEOGRAPH, 0, NULL));
    if (accents) KH_TRY(kh_norm_add(&t->norm, KH_NORM_FORM, KH_NFD, NULL));
    if (accents) KH_TRY(kh_norm_add(&t->norm, KH_NORM_NONSPACED, 0, NULL));
    return lower ? kh_norm_add(&t->norm, KH_NORM_LOWER, 0, NULL) : KH_OK;
}

static kh_status replace(kh_tokenizer *t, const json_t *part)
{
    kh_norm_step *step;
    kh_slice to;
    KH_TRY(kh_norm_add(&t->norm, KH_NORM_REPLACE, 0, &step));
    KH_TRY(kh_part_pattern(t, part, "normalizer Replace", &step->from, &step->regex));
    if (step->regex) step->kind = KH_NORM_PATTERN;
    KH_TRY(kh_part_text(part, "normalizer Replace", "content", 1, &to));
    return kh_store_text(&t->store, &step->to, to.data, to.size);
}

static kh_status precompiled(kh_tokenizer *t, const json_t *part)
{
    kh_slice text = {"", 0};
    KH_TRY(kh_part_text(part, "normalizer Precompiled", "precompiled_charsmap", 0, &text));
    if (!text.size) return KH_OK;
    uint8_t *bytes;
    kh_norm_step *step;
    KH_TRY(kh_store_new(&t->store, &bytes, text.size / 4 * 3 + 3, 1));
    size_t n = kh_base64_decode(bytes, text.data, text.size);
    if (n == (size_t)-1)
        KH_FAIL(KH_ERR_FORMAT, "\"precompiled_charsmap\" of the normalizer is not base64");
    KH_TRY(kh_norm_add(&t->norm, KH_NORM_CHARSMAP, 0, &step));
    return kh_charsmap_init(&step->map, bytes, n);
}

static kh_status strip(kh_tokenizer *t, const json_t *part)
{
    int left = 1, right = 1;
    KH_TRY(kh_part_flag(part, "normalizer Strip", "strip_left", &left));
    KH_TRY(kh_part_flag(part, "normalizer Strip", "strip_right", &right));
    unsigned sides = (left ? KH_NORM_LEFT : 0u) | (right ? KH_NORM_RIGHT : 0u);
    return kh_norm_add(&t->norm, KH_NORM_STRIP, sides, NULL);
}

static kh_status prepend(kh_tokenizer *t, const json_t *part)
{
    kh_norm_step *step;
    kh_slice text;
    KH_TRY(kh_part_text(part, "normalizer Prepend", "prepend", 1, &text));
    KH_TRY(kh_norm_add(&t->norm, KH_NORM_PREPEND, 0, &step));
    return kh_store_text(&t->store, &step->to, text.data, text.size);
}

static kh_status normalizer(kh_tokenizer *t, const json_t *part, int depth)
{
    static const struct {
        const char *name;
        kh_norm_kind kind;
        unsigned flags;
    } plain[] = {
        {"NFC", KH_NORM_FORM, KH_NFC},   {"NFD", KH_NORM_FORM, KH_NFD},
        {"NFKC", KH_NORM_FORM, KH_NFKC}, {"NFKD", KH_NORM_FORM, KH_NFKD},
        {"Lowercase", KH_NORM_LOWER, 0}, {"StripAccents", KH_NORM_MARKS, 0},
        {"Nmt", KH_NORM_NMT, 0},         {"ByteLevel", KH_NORM_LETTERS, 0},
    };
    static const struct {
        const char *name;
        kh_status (*read)(kh_tokenizer *, const json_t *);
    } known[] = {
        {"BertNormalizer", bert},     {"Bert", bert},   {"Replace", replace},
        {"Precompiled", precompiled}, {"Strip", strip}, {"Prepend", prepend},
    };
    kh_slice type = {0};
    KH_TRY(kh_part_type(part, "normalizer", &type));
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; ++i)
        if (kh_slice_is(type, plain[i].name))
            return kh_norm_add(&t->norm, plain[i].kind, plain[i].flags, NULL);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; ++i)
        if (kh_slice_is(type, known[i].name)) return known[i].read(t, part);
    if (!kh_slice_is(type, "Sequence")) return kh_part_unknown("normalizer", type, normalizers);
    if (depth == DEEPEST) return too_deep("normalizer");
    const json_t *list = kh_json_get(part, "normalizers");
    for (size_t i = 0; i < json_array_size(list); ++i)
        KH_TRY(normalizer(t, json_array_get(list, i), depth + 1));
    return KH_OK;
}

kh_status kh_json_normalizer(kh_tokenizer *t, const json_t *part)
{
    return part ? normalizer(t, part, 0) : KH_OK;
}

/* ---- pre-tokenizers ---- */

static const char pre_tokenizers[] =
    "Sequence, ByteLevel, Split, Metaspace, Whitespace, WhitespaceSplit, Digits, Punctuation, "
    "BertPreTokenizer, CharDelimiterSplit, FixedLength";

static kh_status behavior(const json_t *part, const char *name, kh_split_behavior *out)
{
    static const char *const names[] = {
        [KH_SPLIT_ISOLATED] = "Isolated",
        [KH_SPLIT_REMOVED] = "Removed",
        [KH_SPLIT_WITH_PREVIOUS] = "MergedWithPrevious",
        [KH_SPLIT_WITH_NEXT] = "MergedWithNext",
        [KH_SPLIT_CONTIGUOUS] = "Contiguous",
    };
    kh_slice text = {"Isolated", 8};
    KH_TRY(kh_part_text(part, name, "behavior", 0, &text));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i)
        if (kh_slice_is(text, names[i])) {
            *out = (kh_split_behavior)i;
            return KH_OK;
        }
    return kh_part_unknown("behavior", text,
                           "Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous");
}

static kh_status byte_level(kh_tokenizer *t, const json_t *part)
{
    int prefix = 1, pattern = 1;
    KH_TRY(kh_part_flag(part, "pre-tokenizer ByteLevel", "add_prefix_space", &prefix));
    KH_TRY(kh_part_flag(part, "pre-tokenizer ByteLevel", "use_regex", &pattern));
    if (prefix) KH_TRY(kh_split_add(&t->split, KH_SPLIT_BLANK, KH_SPLIT_ISOLATED, NULL));
    if (pattern) {
        kh_pretok gpt2;
        KH_TRY(kh_pretok_find(&gpt2, (kh_slice){"gpt-2", 5}));
        KH_TRY(kh_pretok_add(&t->split, &gpt2));
    }
    return kh_split_add(&t->split, KH_SPLIT_LETTERS, KH_SPLIT_ISOLATED, NULL);
}

static kh_status split(kh_tokenizer *t, const json_t *part)
{
    kh_split_step *step;
    KH_TRY(kh_split_add(&t->split, KH_SPLIT_TEXT, KH_SPLIT_ISOLATED, &step));
    KH_TRY(kh_part_pattern(t, part, "pre-tokenizer Split", &step->text, &step->regex));
    if (step->regex) step->kind = KH_SPLIT_PATTERN;
    KH_TRY(behavior(part, "pre-tokenizer Split", &step->behavior));
    return kh_part_flag(part, "pre-tokenizer Split", "invert", &step->invert);
}

static kh_status metaspace(kh_tokenizer *t, const json_t *part)
{
    static const char name[] = "pre-tokenizer Metaspace";
    kh_slice mark = {KH_TOKENIZER_BLANK, 3}, scheme = {"always", 6};
    int prefix = 1, cuts = 1;
    kh_split_step *step;
    KH_TRY(kh_part_char(part, name, "replacement", &mark));
    KH_TRY(kh_part_flag(part, name, "add_prefix_space", &prefix));
    KH_TRY(kh_part_flag(part, name, "split", &cuts));
    if (!prefix) scheme = (kh_slice){"never", 5};
    KH_TRY(kh_part_text(part, name, "prepend_scheme", 0, &scheme));
    KH_TRY(kh_split_add(&t->split, KH_SPLIT_METASPACE, KH_SPLIT_WITH_NEXT, &step));
    if (kh_slice_is(scheme, "always"))
        step->flags = KH_META_ALWAYS;
    else if (kh_slice_is(scheme, "first"))
        step->flags = KH_META_FIRST;
    else if (!kh_slice_is(scheme, "never"))
        return kh_part_unknown("prepend scheme", scheme, "always, first, never");
    if (cuts) step->flags |= KH_META_SPLIT;
    return kh_store_text(&t->store, &step->text, mark.data, mark.size);
}

static kh_status whitespace(kh_tokenizer *t, const json_t *part)
{
    static const char words[] =
        "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]+|"
        "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}\\t-\\r\\x{85}\\p{Z}]+";
    (void)part;
    kh_split_step *step;
    KH_TRY(kh_split_add(&t->split, KH_SPLIT_PATTERN, KH_SPLIT_REMOVED, &step));
    step->invert = 1;
    return kh_regex_open(&step->regex, (kh_slice){words, sizeof words - 1}, KH_REGEX_PCRE,
                         "the pre-tokenizer Whitespace");
}

static kh_status whitespace_split(kh_tokenizer *t, const json_t *part)
{
    (void)part;
    return kh_split_add(&t->split, KH_SPLIT_WHITE, KH_SPLIT_REMOVED, NULL);
}

static kh_status bert_words(kh_tokenizer *t, const json_t *part)
{
    KH_TRY(whitespace_split(t, part));
    return kh_split_add(&t->split, KH_SPLIT_PUNCTUATION, KH_SPLIT_ISOLATED, NULL);
}

static kh_status digits(kh_tokenizer *t, const json_t *part)
{
    int each = 0;
    KH_TRY(kh_part_flag(part, "pre-tokenizer Digits", "individual_digits", &each));
    return kh_split_add(&t->split, KH_SPLIT_NUMBER, each ? KH_SPLIT_ISOLATED : KH_SPLIT_CONTIGUOUS,
                        NULL);
}

static kh_status punctuation(kh_tokenizer *t, const json_t *part)
{
    kh_split_behavior how = KH_SPLIT_ISOLATED;
    KH_TRY(behavior(part, "pre-tokenizer Punctuation", &how));
    return kh_split_add(&t->split, KH_SPLIT_PUNCTUATION, how, NULL);
}

static kh_status delimiter(kh_tokenizer *t, const json_t *part)
{
    kh_split_step *step;
    kh_slice text = {0};
    KH_TRY(kh_part_char(part, "pre-tokenizer CharDelimiterSplit", "delimiter", &text));
    KH_TRY(kh_split_add(&t->split, KH_SPLIT_TEXT, KH_SPLIT_REMOVED, &step));
    return kh_store_text(&t->store, &step->text, text.data, text.size);
}

static kh_status fixed_length(kh_tokenizer *t, const json_t *part)
{
    kh_split_step *step;
    KH_TRY(kh_split_add(&t->split, KH_SPLIT_LENGTH, KH_SPLIT_ISOLATED, &step));
    step->length = 5;
    KH_TRY(kh_part_count(part, "pre-tokenizer FixedLength", "length", &step->length));
    if (!step->length) KH_FAIL(KH_ERR_FORMAT, "\"length\" of the pre-tokenizer FixedLength is 0");
    return KH_OK;
}

static kh_status pre_tokenizer(kh_tokenizer *t, const json_t *part, int depth)
{
    static const struct {
        const char *name;
        kh_status (*read)(kh_tokenizer *, const json_t *);
    } known[] = {
        {"ByteLevel", byte_level},
        {"Split", split},
        {"Metaspace", metaspace},
        {"Whitespace", whitespace},
        {"WhitespaceSplit", whitespace_split},
        {"BertPreTokenizer", bert_words},
        {"Digits", digits},
        {"Punctuation", punctuation},
        {"CharDelimiterSplit", delimiter},
        {"FixedLength", fixed_length},
    };
    kh_slice type = {0};
    KH_TRY(kh_part_type(part, "pre-tokenizer", &type));
    for (size_t i = 0; i < sizeof known / sizeof known[0]; ++i)
        if (kh_slice_is(type, known[i].name)) return known[i].read(t, part);
    if (!kh_slice_is(type, "Sequence"))
        return kh_part_unknown("pre-tokenizer", type, pre_tokenizers);
    if (depth == DEEPEST) return too_deep("pre-tokenizer");
    const json_t *list = kh_json_get(part, "pretokenizers");
    for (size_t i = 0; i < json_array_size(list); ++i)
        KH_TRY(pre_tokenizer(t, json_array_get(list, i), depth + 1));
    return KH_OK;
}

kh_status kh_json_pre_tokenizer(kh_tokenizer *t, const json_t *part)
{
    return part ? pre_tokenizer(t, part, 0) : KH_OK;
}

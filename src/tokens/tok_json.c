/* tokenizer.json: the document, and what its parts share.
 *
 * The parts are read in the order in which they need each other: normalizer, pre-tokenizer, model
 * (whose kind depends on the pre-tokenizer: byte-level BPE takes the bytes themselves), added
 * tokens (whose texts may have to be normalised), post-processor, decoder. Everything that is kept
 * is copied into the tokenizer's store; the document is freed before the call returns.
 *
 * The file is not trusted: every member's type is checked, ids are bounded by the size of the
 * vocabulary, nesting by jansson and by the lists of steps. Truncation and padding are not read:
 * how long a text may be is for the caller to say. */
#include "tokens/tok_json.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "format/utf8.h"

#include <string.h>

static kh_status wrong(const char *part, const char *key, const char *expected, const json_t *found)
{
    KH_FAIL(KH_ERR_FORMAT, "\"%s\" of the %s is %s (expected: %s)", key, part, kh_json_kind(found),
            expected);
}

kh_status kh_part_text(const json_t *object, const char *part, const char *key, int must,
                       kh_slice *out)
{
    const json_t *value = kh_json_get(object, key);
    if (!value && !must) return KH_OK;
    if (!json_is_string(value)) return wrong(part, key, "a string", value);
    *out = (kh_slice){json_string_value(value), json_string_length(value)};
    return KH_OK;
}

kh_status kh_part_flag(const json_t *object, const char *part, const char *key, int *out)
{
    const json_t *value = kh_json_get(object, key);
    if (!value) return KH_OK;
    if (!json_is_boolean(value)) return wrong(part, key, "true or false", value);
    *out = json_is_true(value);
    return KH_OK;
}

kh_status kh_part_count(const json_t *object, const char *part, const char *key, size_t *out)
{
    const json_t *value = kh_json_get(object, key);
    if (!value) return KH_OK;
    double number;
    if (!kh_json_number(value, &number) || number < 0 || number > INT32_MAX ||
        number != (double)(int64_t)number)
        return wrong(part, key, "an integer from 0 to 2147483647", value);
    *out = (size_t)number;
    return KH_OK;
}

kh_status kh_part_char(const json_t *object, const char *part, const char *key, kh_slice *out)
{
    KH_TRY(kh_part_text(object, part, key, 0, out));
    if (!out->size || kh_utf8_next(out->data, out->size).size != out->size)
        return wrong(part, key, "one character", kh_json_get(object, key));
    return KH_OK;
}

kh_status kh_part_type(const json_t *object, const char *part, kh_slice *out)
{
    if (!json_is_object(object))
        KH_FAIL(KH_ERR_FORMAT, "the %s is %s (expected: an object)", part, kh_json_kind(object));
    return kh_part_text(object, part, "type", 1, out);
}

kh_status kh_part_unknown(const char *kind, kh_slice type, const char *known)
{
    int shown = type.size < 64 ? (int)type.size : 64;
    KH_FAIL(KH_ERR_UNSUPPORTED, "the %s \"%.*s\" is not supported (supported: %s)", kind, shown,
            type.data, known);
}

kh_status kh_part_pattern(kh_tokenizer *t, const json_t *object, const char *part, kh_slice *text,
                          kh_regex **regex)
{
    const json_t *pattern = kh_json_get(object, "pattern");
    kh_slice found = {0};
    *text = found;
    KH_TRY(kh_part_text(pattern, part, "String", 0, &found));
    if (found.data) {
        if (!found.size) KH_FAIL(KH_ERR_UNSUPPORTED, "the pattern of the %s is empty", part);
        return kh_store_text(&t->store, text, found.data, found.size);
    }
    KH_TRY(kh_part_text(pattern, part, "Regex", 1, &found));
    if (found.size > 1 << 20)
        KH_FAIL(KH_ERR_UNSUPPORTED, "the pattern of the %s has %zu bytes (allowed: 1048576)", part,
                found.size);
    KH_TRY(kh_store_text(&t->store, text, found.data, found.size));
    char what[64] = "the ";
    strncat(what, part, sizeof what - 5);
    return kh_regex_open(regex, found, KH_REGEX_ONIGURUMA, what);
}

static kh_status read_parts(kh_tokenizer *t, const json_t *root)
{
    if (!json_is_object(root))
        KH_FAIL(KH_ERR_FORMAT, "the tokenizer is %s (expected: an object)", kh_json_kind(root));
    const json_t *added = kh_json_get(root, "added_tokens");
    if (added && !json_is_array(added)) return wrong("tokenizer", "added_tokens", "a list", added);
    KH_TRY(kh_json_normalizer(t, kh_json_get(root, "normalizer")));
    KH_TRY(kh_json_pre_tokenizer(t, kh_json_get(root, "pre_tokenizer")));
    KH_TRY(kh_json_model(t, kh_json_get(root, "model"), added));
    KH_TRY(kh_json_added(t, added));
    KH_TRY(kh_json_post_processor(t, kh_json_get(root, "post_processor")));
    return kh_json_decoder(t, kh_json_get(root, "decoder"));
}

/* U+0000 is allowed in texts: a piece may be that character. */
static kh_status parse(json_t **out, const char *json, size_t size)
{
    json_error_t error;
    *out = json_loadb(json, size, JSON_ALLOW_NUL, &error);
    if (*out) return KH_OK;
    if (json_error_code(&error) == json_error_out_of_memory || !error.text[0])
        KH_FAIL(KH_ERR_MEMORY, "no memory for this JSON document");
    for (char *c = error.text; *c; ++c)
        if (*c < ' ' || *c > '~') *c = '?';
    KH_FAIL(KH_ERR_FORMAT, "JSON is expected; line %d, column %d: %s", error.line, error.column,
            error.text);
}

kh_status kh_tokenizer_open_json(kh_tokenizer **out, const char *json, size_t size,
                                 const char *name)
{
    *out = NULL;
    kh_tokenizer *t;
    json_t *root = NULL;
    KH_TRY(kh_new(&t, 1, sizeof *t, "a tokenizer"));
    kh_special_ids none = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0};
    t->special = none;
    t->skips_longest = 1;
    kh_status status = parse(&root, json, size);
    if (status == KH_OK) status = read_parts(t, root);
    json_decref(root);
    if (status != KH_OK) {
        kh_tokenizer_close(t);
        return kh_fail_context(status, "%s", name);
    }
    t->special.unk = t->options.unk;
    const kh_post_template *one = &t->post.one;
    t->special.add_bos = one->count > 1 && one->items[0].id >= 0;
    t->special.add_eos = one->count > 1 && one->items[one->count - 1].id >= 0;
    kh_tokenizer_find_ends(t);
    *out = t;
    return KH_OK;
}

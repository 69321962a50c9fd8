/* tokenizer.json: post-processors become templates, decoders become steps.
 *
 * A post-processor that only trims offsets (ByteLevel) is nothing here. Two that add tokens, one
 * behind the other, do not occur and are refused. Behind Fuse (or ByteLevel, which fuses too) a
 * decoder's steps see the whole text; of those only Strip at its start can be done while the text
 * comes token by token. */
#include "base/fail.h"
#include "tokens/tok_json.h"

#include <string.h>

enum { DEEPEST = 16 };

/* ---- post-processors ---- */

static const char processors[] =
    "TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel, Sequence";

static kh_status check_id(const kh_tokenizer *t, const json_t *value, const char *part,
                          int32_t *out)
{
    double id;
    if (!kh_json_number(value, &id) || id < 0 || id >= t->vocab.size || id != (double)(int32_t)id)
        KH_FAIL(KH_ERR_FORMAT, "an id of the %s is %s or out of range (expected: 0 to %d)", part,
                kh_json_kind(value), t->vocab.size - 1);
    *out = (int32_t)id;
    return KH_OK;
}

static kh_status add_item(kh_post_template *list, int32_t id, size_t type)
{
    if (list->count == KH_POST_MOST)
        KH_FAIL(KH_ERR_UNSUPPORTED, "a template has more than %d items", KH_POST_MOST);
    kh_post_add(list, id, (int32_t)type);
    return KH_OK;
}

static kh_status add_special(const kh_tokenizer *t, kh_post_template *list, const json_t *tokens,
                             kh_slice name, size_t type)
{
    static const char part[] = "post-processor TemplateProcessing";
    const json_t *ids = memchr(name.data, 0, name.size)
                            ? NULL
                            : kh_json_get(kh_json_get(tokens, name.data), "ids");
    if (!json_is_array(ids))
        KH_FAIL(KH_ERR_FORMAT, "the %s does not say what \"%.*s\" is", part,
                name.size < 64 ? (int)name.size : 64, name.data);
    for (size_t i = 0; i < json_array_size(ids); ++i) {
        int32_t id = 0;
        KH_TRY(check_id(t, json_array_get(ids, i), part, &id));
        KH_TRY(add_item(list, id, type));
    }
    return KH_OK;
}

static kh_status read_template(const kh_tokenizer *t, const json_t *part, const char *key,
                               kh_post_template *out)
{
    static const char name[] = "post-processor TemplateProcessing";
    const json_t *list = kh_json_get(part, key);
    *out = (kh_post_template){.count = 0};
    if (!json_is_array(list))
        KH_FAIL(KH_ERR_FORMAT, "\"%s\" of the %s is %s (expected: a list)", key, name,
                kh_json_kind(list));
    for (size_t i = 0; i < json_array_size(list); ++i) {
        const json_t *item = json_array_get(list, i);
        const json_t *text = kh_json_get(item, "Sequence");
        const json_t *inner = text ? text : kh_json_get(item, "SpecialToken");
        kh_slice id = {0};
        size_t type = 0;
        KH_TRY(kh_part_text(inner, name, "id", 1, &id));
        KH_TRY(kh_part_count(inner, name, "type_id", &type));
        if (!text)
            KH_TRY(add_special(t, out, kh_json_get(part, "special_tokens"), id, type));
        else if (kh_slice_is(id, "A") || kh_slice_is(id, "B"))
            KH_TRY(add_item(out, kh_slice_is(id, "A") ? KH_POST_A : KH_POST_B, type));
        else
            return kh_part_unknown("sequence", id, "A, B");
    }
    return KH_OK;
}

/* "sep": ["[SEP]", 102] */
static kh_status read_pair(const kh_tokenizer *t, const json_t *part, const char *key, int32_t *id)
{
    const json_t *pair = kh_json_get(part, key);
    return check_id(t, json_array_get(pair, 1), "post-processor", id);
}

static kh_status read_roberta(kh_tokenizer *t, const json_t *part, int bert)
{
    int32_t cls = 0, sep = 0;
    KH_TRY(read_pair(t, part, "cls", &cls));
    KH_TRY(read_pair(t, part, "sep", &sep));
    kh_post_edges(&t->post, cls, sep, bert);
    if (bert) return KH_OK;
    t->post.two.count = 0;
    const int32_t items[] = {cls, KH_POST_A, sep, sep, KH_POST_B, sep};
    for (size_t i = 0; i < sizeof items / sizeof items[0]; ++i)
        kh_post_add(&t->post.two, items[i], 0);
    return KH_OK;
}

static kh_status processor(kh_tokenizer *t, const json_t *part, int depth, int *adds)
{
    kh_slice type = {0};
    KH_TRY(kh_part_type(part, "post-processor", &type));
    if (kh_slice_is(type, "ByteLevel")) return KH_OK;
    if (kh_slice_is(type, "Sequence")) {
        const json_t *list = kh_json_get(part, "processors");
        if (depth == DEEPEST)
            KH_FAIL(KH_ERR_UNSUPPORTED, "the post-processor has sequences inside each other");
        for (size_t i = 0; i < json_array_size(list); ++i)
            KH_TRY(processor(t, json_array_get(list, i), depth + 1, adds));
        return KH_OK;
    }
    if ((*adds)++)
        KH_FAIL(KH_ERR_UNSUPPORTED, "two post-processors that add tokens, one behind the other, "
                                    "are not supported");
    if (kh_slice_is(type, "TemplateProcessing")) {
        KH_TRY(read_template(t, part, "single", &t->post.one));
        return read_template(t, part, "pair", &t->post.two);
    }
    if (kh_slice_is(type, "BertProcessing")) return read_roberta(t, part, 1);
    if (kh_slice_is(type, "RobertaProcessing")) return read_roberta(t, part, 0);
    return kh_part_unknown("post-processor", type, processors);
}

kh_status kh_json_post_processor(kh_tokenizer *t, const json_t *part)
{
    int adds = 0;
    kh_post_edges(&t->post, -1, -1, 1);
    return part ? processor(t, part, 0, &adds) : KH_OK;
}

/* ---- decoders ---- */

static const char decoders[] =
    "Sequence, ByteLevel, WordPiece, Metaspace, BPEDecoder, ByteFallback, "
    "Fuse, Strip, Replace";

static kh_status byte_level(kh_tokenizer *t, const json_t *part)
{
    (void)part;
    KH_TRY(kh_decode_add(&t->decoder, KH_DECODE_LETTERS, NULL));
    t->decoder.fused = 1;
    return KH_OK;
}

static kh_status store(kh_tokenizer *t, kh_slice *out, kh_slice text)
{
    return kh_store_text(&t->store, out, text.data, text.size);
}

static kh_status word_piece(kh_tokenizer *t, const json_t *part)
{
    kh_slice prefix = {"##", 2};
    int tidy = 1;
    kh_decode_step *step;
    KH_TRY(kh_part_text(part, "decoder WordPiece", "prefix", 0, &prefix));
    KH_TRY(kh_part_flag(part, "decoder WordPiece", "cleanup", &tidy));
    KH_TRY(kh_decode_add(&t->decoder, KH_DECODE_WORDS, &step));
    KH_TRY(store(t, &step->from, prefix));
    return tidy ? kh_decode_add(&t->decoder, KH_DECODE_TIDY, NULL) : KH_OK;
}

static kh_status metaspace(kh_tokenizer *t, const json_t *part)
{
    static const char name[] = "decoder Metaspace";
    kh_slice mark = {KH_TOKENIZER_BLANK, 3}, scheme = {"always", 6};
    int prefix = 1;
    kh_decode_step *step;
    KH_TRY(kh_part_char(part, name, "replacement", &mark));
    KH_TRY(kh_part_flag(part, name, "add_prefix_space", &prefix));
    KH_TRY(kh_part_text(part, name, "prepend_scheme", 0, &scheme));
    KH_TRY(kh_decode_add(&t->decoder, KH_DECODE_METASPACE, &step));
    step->start = prefix && !kh_slice_is(scheme, "never");
    return store(t, &step->from, mark);
}

static kh_status bpe(kh_tokenizer *t, const json_t *part)
{
    kh_slice suffix = {"</w>", 4};
    kh_decode_step *step;
    KH_TRY(kh_part_text(part, "decoder BPEDecoder", "suffix", 0, &suffix));
    if (!suffix.size) KH_FAIL(KH_ERR_UNSUPPORTED, "the suffix of the decoder BPEDecoder is empty");
    KH_TRY(kh_decode_add(&t->decoder, KH_DECODE_SUFFIX, &step));
    return store(t, &step->from, suffix);
}

static kh_status byte_fallback(kh_tokenizer *t, const json_t *part)
{
    (void)part;
    return kh_decode_add(&t->decoder, KH_DECODE_BYTES, NULL);
}

static kh_status fuse(kh_tokenizer *t, const json_t *part)
{
    (void)part;
    t->decoder.fused = 1;
    return KH_OK;
}

static kh_status strip(kh_tokenizer *t, const json_t *part)
{
    static const char name[] = "decoder Strip";
    kh_slice what = {" ", 1};
    kh_decode_step *step;
    int fused = t->decoder.fused;
    KH_TRY(kh_decode_add(&t->decoder, fused ? KH_DECODE_STRIP_TEXT : KH_DECODE_STRIP, &step));
    KH_TRY(kh_part_char(part, name, "content", &what));
    KH_TRY(kh_part_count(part, name, "start", &step->start));
    KH_TRY(kh_part_count(part, name, "stop", &step->stop));
    if (fused && step->stop)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "the decoder Strip at the end of a text (behind Fuse) is not supported");
    return store(t, &step->from, what);
}

static kh_status replace(kh_tokenizer *t, const json_t *part)
{
    kh_decode_step *step;
    kh_slice to = {0};
    KH_TRY(kh_decode_add(&t->decoder, KH_DECODE_REPLACE, &step));
    KH_TRY(kh_part_pattern(t, part, "decoder Replace", &step->from, &step->regex));
    if (step->regex) step->kind = KH_DECODE_PATTERN;
    KH_TRY(kh_part_text(part, "decoder Replace", "content", 1, &to));
    return store(t, &step->to, to);
}

static kh_status decoder(kh_tokenizer *t, const json_t *part, int depth)
{
    static const struct {
        const char *name;
        kh_status (*read)(kh_tokenizer *, const json_t *);
        int of_text; /* means the same for a whole text */
    } known[] = {
        {"ByteLevel", byte_level, 0},
        {"WordPiece", word_piece, 0},
        {"Metaspace", metaspace, 0},
        {"BPEDecoder", bpe, 0},
        {"Fuse", fuse, 1},
        {"Strip", strip, 1},
        {"ByteFallback", byte_fallback, 0},
        {"Replace", replace, 0},
    };
    kh_slice type = {0};
    KH_TRY(kh_part_type(part, "decoder", &type));
    for (size_t i = 0; i < sizeof known / sizeof known[0]; ++i) {
        if (!kh_slice_is(type, known[i].name)) continue;
        if (t->decoder.fused && !known[i].of_text)
            KH_FAIL(KH_ERR_UNSUPPORTED, "the decoder %s behind Fuse is not supported",
                    known[i].name);
        return known[i].read(t, part);
    }
    if (!kh_slice_is(type, "Sequence")) return kh_part_unknown("decoder", type, decoders);
    const json_t *list = kh_json_get(part, "decoders");
    if (depth == DEEPEST)
        KH_FAIL(KH_ERR_UNSUPPORTED, "the decoder has sequences inside each other");
    for (size_t i = 0; i < json_array_size(list); ++i)
        KH_TRY(decoder(t, json_array_get(list, i), depth + 1));
    return KH_OK;
}

kh_status kh_json_decoder(kh_tokenizer *t, const json_t *part)
{
    if (!part) return kh_decode_add(&t->decoder, KH_DECODE_JOIN, NULL);
    return decoder(t, part, 0);
}

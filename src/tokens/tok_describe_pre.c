/* The name of a pre-tokenizer, found by what it does.
 *
 * GGUF stores a name, tokenizer.json stores patterns; the same pre-tokenizer is written in many ways (llama 3 has two
 * spellings of its contractions, and ByteLevel's own pattern is never spelt out). So the patterns are not compared:
 * both splitters cut the same text, and the first name whose words are the same is taken. The probe has a run of
 * everything that the known families tell apart: contractions in both cases, letters of several scripts with and
 * without marks, digits in runs of one to seven and of other scripts, ideographs and kana, punctuation and symbols,
 * all kinds of white space in front of each, line ends with and without a slash before them.
 *
 * A family that takes whole words before merging is another name than one that does not. */
#include "base/alloc.h"
#include "base/fail.h"
#include "tokens/tok_describe.h"

#include <string.h>

static const char *const parts[] = {
    "a",
    "Ab",
    "aBC",
    "HTTPServer",
    "\xC3\xA9",
    "e\xCC\x81z",
    "\xD0\x96\xD0\xB0",
    "1",
    "12",
    "123",
    "1234567",
    "\xD9\xA1\xD9\xA2",
    "\xC2\xBD",
    "\xE2\x85\xA7",
    "'s",
    "'S",
    "'ll",
    "'LL",
    "'re",
    "'t",
    "\xE2\x80\x99s",
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\r\n",
    " \n ",
    "\t",
    "\t\t",
    "\xC2\xA0",
    "\xE3\x80\x80",
    "\xE1\xA0\x8E",
    "\xC2\x85",
    "\x1C",
    ".",
    "...",
    "!?",
    "/",
    "//\n",
    "/\n",
    "\\",
    "$",
    "+=",
    "<|>",
    "^~`",
    "_",
    "-",
    "#",
    "\xE4\xB8\xAD\xE6\x96\x87",
    "\xE3\x81\xB2\xE3\x82\x89",
    "\xE3\x82\xAB\xE3\x83\xBC",
    "\xED\x95\x9C",
    "\xE0\xA4\x95\xE0\xA5\x8D\xE0\xA4\xB7",
    "\xE0\xB8\x81\xE0\xB8\xB5\xE0\xB9\x88",
    "\xC2\xAB\xC2\xBB",
    "\xF0\x9F\x98\x80",
    "\xE2\x88\x91",
    "\xC7\x85",
    "\xCA\xB0",
    "\xE2\x80\x8D",
    "\xE9\xBE\xA6",
};
enum { PARTS = sizeof parts / sizeof parts[0] };

/* Every ordered pair of parts, a letter in between now and then, so that runs end. */
static kh_status make_probe(kh_buf *out)
{
    for (size_t i = 0; i < PARTS; ++i)
        for (size_t j = 0; j < PARTS; ++j) {
            KH_TRY(kh_buf_text(out, parts[i]));
            KH_TRY(kh_buf_text(out, parts[j]));
            if ((i + j) % 3 == 0) KH_TRY(kh_buf_text(out, " x"));
            if ((i + j) % 5 == 0) KH_TRY(kh_buf_text(out, parts[(i * 7 + j) % PARTS]));
        }
    return KH_OK;
}

typedef struct cuts {
    kh_buf ends; /* of words, as size_t */
    size_t at;
} cuts;

static kh_status note(void *context, const char *word, size_t size)
{
    (void)word;
    cuts *c = context;
    c->at += size;
    return kh_buf_add(&c->ends, &c->at, sizeof c->at);
}

static kh_status cut(const kh_split *split, const kh_buf *probe, cuts *out)
{
    kh_split_scratch scratch = {0};
    kh_regex_scratch match = {0};
    kh_status status = kh_split_run(split, &scratch, &match, (kh_slice){probe->data, probe->size},
                                    1, note, out);
    kh_split_scratch_free(&scratch);
    kh_regex_scratch_free(&match);
    return status;
}

static kh_status same(const kh_pretok *pre, const kh_buf *probe, const cuts *want, int *is_same)
{
    kh_split *split;
    cuts got = {.at = 0};
    *is_same = 0;
    KH_TRY(kh_new(&split, 1, sizeof *split, "a pre-tokenizer"));
    kh_status status = kh_pretok_add(split, pre);
    if (status == KH_OK) status = cut(split, probe, &got);
    *is_same = status == KH_OK && got.ends.size == want->ends.size &&
               !memcmp(got.ends.data, want->ends.data, want->ends.size);
    kh_buf_free(&got.ends);
    kh_split_free(split);
    kh_free(split);
    return status;
}

static kh_status find(const kh_tokenizer *t, const kh_buf *probe, const char **name)
{
    cuts want = {.at = 0};
    int family = -1, whole_words = 0;
    kh_pretok pre;
    *name = NULL;
    kh_status status = cut(&t->split, probe, &want);
    for (size_t i = 0; status == KH_OK && !*name && kh_pretok_at(i, &pre); ++i) {
        int is_same = pre.family == family;
        if (family < 0) status = same(&pre, probe, &want, &is_same);
        if (!is_same) continue;
        family = pre.family;
        whole_words = pre.whole_words;
        if (whole_words == (t->options.whole_words != 0)) *name = pre.name;
    }
    kh_buf_free(&want.ends);
    KH_TRY(status);
    if (!*name && family >= 0)
        KH_FAIL(
            KH_ERR_UNSUPPORTED,
            "GGUF has a name for this pre-tokenizer only with a model that %s whole words first",
            whole_words ? "takes" : "does not take");
    if (!*name)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "GGUF has no name for a pre-tokenizer that cuts text as this one does");
    return KH_OK;
}

kh_status kh_describe_pre(const kh_tokenizer *t, const char **name)
{
    kh_buf probe = {0};
    kh_status status = make_probe(&probe);
    if (status == KH_OK) status = find(t, &probe, name);
    kh_buf_free(&probe);
    return status;
}

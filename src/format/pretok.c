/* Pre-tokenizers: regular expressions, run by PCRE2.
 *
 * A family is a short list of stages. A stage cuts every piece that the stage before it left into
 * its matches and the gaps between them; what comes out of the last stage are words. This is the
 * sequence of "isolated" splits of Hugging Face's tokenizers, from whose tokenizer.json files the
 * patterns are known, and the list of expressions of llama.cpp, from which the names are known. Where the
 * two differ (llama.cpp simplifies the letter cases of gpt-4o and tekken), the pattern that the model
 * was trained with is used; "default" exists in llama.cpp alone.
 *
 * Two traps, both avoided by spelling white space out:
 *   - PCRE2's \s, even with UCP, contains U+180E, which left the White_Space property in Unicode 6.3;
 *     the engines that define these tokenizers do not match it. SPACE below is that property.
 *   - a piece must be matched as a subject of its own: \s+(?!\S) looks one character ahead, and at
 *     the end of a piece there is nothing to see, even if the text goes on.
 *
 * All patterns are single-character classes under quantifiers, so PCRE2's JIT runs them without a
 * stack that grows with the text, and a match that fails costs no more than the run it looked at.
 * The subject has been validated, so matching skips its own check (which would make a long text cost
 * the square of its length). A failed JIT (no executable memory) falls back to the interpreter.
 *
 * Letters, digits and marks are those of the installed PCRE2's Unicode version (10.42: Unicode 14).
 *
 * Rejected: hand-written scanners (faster, but one for each family, and wrong in the corners). */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "format/pretok.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"

#include <pcre2.h>
#include <string.h>

/* Inside a class. */
#define SPACE "\\t-\\r\\x{85}\\p{Z}"
#define UPPER "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
/* Pieces of patterns. */
#define RUN      "[" SPACE "]+(?![^" SPACE "])" /* white space, but for the one before a word */
#define SHORT    "'s|'t|'re|'ve|'m|'ll|'d"
#define ANY_CASE "(?i:" SHORT ")"
#define LINES    "[" SPACE "]*[\\r\\n]+"
#define LEAD     "[^\\r\\n\\p{L}\\p{N}]?"
/* Whole patterns. */
#define WORDS_GPT2 SHORT "| ?\\p{L}+| ?\\p{N}+| ?[^" SPACE "\\p{L}\\p{N}]+|" RUN "|[" SPACE "]+"
#define WORDS_LLAMA3(letters, numbers)                                                             \
    ANY_CASE "|" LEAD "[" letters "]+|" numbers "| ?[^" SPACE "\\p{N}" letters                     \
             "]+[\\r\\n]*|" LINES "|" RUN "|[" SPACE "]+"
#define CASED(tail) LEAD "[" UPPER "]*[" LOWER "]+" tail "|" LEAD "[" UPPER "]+[" LOWER "]*" tail
#define WORDS_CASED(tail, numbers)                                                                 \
    CASED(tail)                                                                                    \
    "|" numbers "| ?[^" SPACE "\\p{L}\\p{N}]+[\\r\\n/]*|" LINES "|" RUN "|[" SPACE "]+"

enum { STAGES = 5 };
enum { WHOLE_WORDS = 1, ADDS_BOS = 2 };

typedef enum family {
    GPT2,
    DIGITS, /* single digits, then gpt2 */
    LLAMA3,
    QWEN2,
    QWEN35,
    GPT4O,
    TEKKEN,
    FALCON,
    DEEPSEEK_CODER,
    DEEPSEEK_V3,
    DEFAULT,
    FAMILIES
} family;

static const char *const patterns[FAMILIES][STAGES] = {
    [GPT2] = {WORDS_GPT2},
    [DIGITS] = {"\\p{N}", WORDS_GPT2},
    [LLAMA3] = {WORDS_LLAMA3("\\p{L}", "\\p{N}{1,3}")},
    [QWEN2] = {WORDS_LLAMA3("\\p{L}", "\\p{N}")},
    [QWEN35] = {WORDS_LLAMA3("\\p{L}\\p{M}", "\\p{N}")},
    [GPT4O] = {WORDS_CASED(ANY_CASE "?", "\\p{N}{1,3}")},
    [TEKKEN] = {WORDS_CASED("", "\\p{N}")},
    [FALCON] = {"[\\p{P}$+<=>^~|`]+", WORDS_GPT2, "[0-9][0-9][0-9]"},
    [DEEPSEEK_CODER] = {"[\\r\\n]", "[" SPACE "]?\\p{L}+", "[" SPACE "]?\\p{P}+",
                        "[\\x{4E00}-\\x{9FA5}\\x{0800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+", "\\p{N}"},
    [DEEPSEEK_V3] = {"\\p{N}{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
                     "[!-/:-@\\[-`{-~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
                     " ?[\\p{P}\\p{S}]+[\\r\\n]*|" LINES "|" RUN "|[" SPACE "]+"},
    [DEFAULT] = {"[\\p{P}$+<=>^~|]+", WORDS_GPT2, "\\p{N}+", "[0-9][0-9][0-9]"},
};

static const struct known {
    const char *name;
    unsigned char family, flags;
} known[] = {
    {"default", DEFAULT, 0},
    {"gpt-2", GPT2, 0},
    {"gpt2", GPT2, 0},
    {"phi-2", GPT2, 0},
    {"mpt", GPT2, 0},
    {"olmo", GPT2, 0},
    {"jais", GPT2, 0},
    {"exaone4", GPT2, 0},
    {"roberta-bpe", GPT2, 0},
    {"modern-bert", GPT2, 0},
    {"granite-docling", GPT2, 0},
    {"smollm", DIGITS, 0},
    {"starcoder", DIGITS, 0},
    {"refact", DIGITS, 0},
    {"command-r", DIGITS, 0},
    {"codeshell", DIGITS, 0},
    {"exaone", DIGITS, 0},
    {"minerva-7b", DIGITS, 0},
    {"llama-bpe", LLAMA3, WHOLE_WORDS | ADDS_BOS},
    {"llama3", LLAMA3, WHOLE_WORDS | ADDS_BOS},
    {"llama-v3", LLAMA3, WHOLE_WORDS | ADDS_BOS},
    {"falcon3", LLAMA3, WHOLE_WORDS | ADDS_BOS},
    {"falcon-h1", LLAMA3, WHOLE_WORDS | ADDS_BOS},
    {"pixtral", LLAMA3, WHOLE_WORDS | ADDS_BOS},
    {"lfm2", LLAMA3, WHOLE_WORDS | ADDS_BOS},
    {"dbrx", LLAMA3, 0},
    {"smaug-bpe", LLAMA3, 0},
    {"glm4", LLAMA3, 0},
    {"qwen2", QWEN2, 0},
    {"deepseek-r1-qwen", QWEN2, 0},
    {"stablelm2", QWEN2, 0},
    {"hunyuan", QWEN2, 0},
    {"megrez", QWEN2, 0},
    {"qwen35", QWEN35, 0},
    {"gpt-4o", GPT4O, 0},
    {"llama4", GPT4O, 0},
    {"tekken", TEKKEN, WHOLE_WORDS | ADDS_BOS},
    {"falcon", FALCON, 0},
    {"deepseek-coder", DEEPSEEK_CODER, 0},
    {"deepseek-v3", DEEPSEEK_V3, 0},
};
enum { KNOWN = sizeof known / sizeof known[0] };

struct kh_pretok {
    const struct known *entry;
    pcre2_general_context *general;
    pcre2_match_context *limits;
    pcre2_code *stage[STAGES];
    int stages;
};

static void *take(PCRE2_SIZE size, void *unused)
{
    (void)unused;
    return kh_alloc(size);
}

static void give(void *memory, void *unused)
{
    (void)unused;
    kh_free(memory);
}

static kh_status unknown(kh_slice name)
{
    char list[KNOWN * 18];
    size_t used = 0;
    for (size_t i = 0; i < KNOWN; ++i) {
        size_t n = strlen(known[i].name);
        if (used + n + 3 > sizeof list) break;
        if (used) used += (size_t)(stpcpy(list + used, ", ") - (list + used));
        memcpy(list + used, known[i].name, n + 1);
        used += n;
    }
    int shown = name.size < 64 ? (int)name.size : 64;
    KH_FAIL(KH_ERR_UNSUPPORTED, "pre-tokenizer \"%.*s\" is not known (known: %s)", shown, name.data,
            list);
}

static kh_status compile(kh_pretok *p)
{
    p->general = pcre2_general_context_create(take, give, NULL);
    p->limits = p->general ? pcre2_match_context_create(p->general) : NULL;
    pcre2_compile_context *options = p->general ? pcre2_compile_context_create(p->general) : NULL;
    kh_status status = KH_OK;
    if (!p->limits || !options) status = kh_fail(KH_ERR_MEMORY, "no memory for a pre-tokenizer");
    const char *const *list = patterns[p->entry->family];
    for (; status == KH_OK && p->stages < STAGES && list[p->stages]; ++p->stages) {
        int error;
        PCRE2_SIZE at;
        pcre2_code *code = pcre2_compile((PCRE2_SPTR)list[p->stages], PCRE2_ZERO_TERMINATED,
                                         PCRE2_UTF | PCRE2_UCP, &error, &at, options);
        p->stage[p->stages] = code;
        if (!code && error == PCRE2_ERROR_HEAP_FAILED)
            status = kh_fail(KH_ERR_MEMORY, "no memory for pre-tokenizer \"%s\"", p->entry->name);
        else if (!code)
            status = kh_fail(KH_ERR_UNSUPPORTED,
                             "PCRE2 refuses pattern %d of pre-tokenizer \"%s\" (error %d at %zu)",
                             p->stages, p->entry->name, error, (size_t)at);
        else
            pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* without it the interpreter matches */
    }
    pcre2_compile_context_free(options);
    return status;
}

kh_status kh_pretok_open(kh_pretok **out, kh_slice name)
{
    *out = NULL;
    if (!name.size) name = (kh_slice){"default", 7};
    const struct known *entry = NULL;
    for (size_t i = 0; i < KNOWN && !entry; ++i)
        if (strlen(known[i].name) == name.size && !memcmp(known[i].name, name.data, name.size))
            entry = &known[i];
    if (!entry) return unknown(name);
    kh_pretok *p;
    KH_TRY(kh_new(&p, 1, sizeof *p, "a pre-tokenizer"));
    p->entry = entry;
    kh_status status = compile(p);
    if (status != KH_OK) {
        kh_pretok_close(p);
        return status;
    }
    pcre2_set_match_limit(p->limits, 1u << 30);
    pcre2_set_heap_limit(p->limits, 1u << 20); /* KiB; reached by no pattern above */
    *out = p;
    return KH_OK;
}

void kh_pretok_close(kh_pretok *pretok)
{
    if (!pretok) return;
    for (int i = 0; i < STAGES; ++i) pcre2_code_free(pretok->stage[i]);
    pcre2_match_context_free(pretok->limits);
    pcre2_general_context_free(pretok->general);
    kh_free(pretok);
}

const char *kh_pretok_name(const kh_pretok *pretok)
{
    return pretok->entry->name;
}

int kh_pretok_whole_words(const kh_pretok *pretok)
{
    return (pretok->entry->flags & WHOLE_WORDS) != 0;
}

int kh_pretok_adds_bos(const kh_pretok *pretok)
{
    return (pretok->entry->flags & ADDS_BOS) != 0;
}

void kh_pretok_scratch_free(kh_pretok_scratch *scratch)
{
    pcre2_match_data_free(scratch->match);
    scratch->match = NULL;
}

typedef struct cutter {
    const kh_pretok *pretok;
    pcre2_match_data *match;
    kh_pretok_word *word;
    void *context;
} cutter;

/* Finds the first match at or behind `from`. Its ends are left in *start and *end; both are `size`
 * when there is none. */
static kh_status find(const cutter *c, int stage, const char *text, size_t size, size_t from,
                      size_t *start, size_t *end)
{
    const pcre2_code *code = c->pretok->stage[stage];
    unsigned options = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int n = pcre2_match(code, (PCRE2_SPTR)text, size, from, options, c->match, c->pretok->limits);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT)
        n = pcre2_match(code, (PCRE2_SPTR)text, size, from, options | PCRE2_NO_JIT, c->match,
                        c->pretok->limits);
    *start = *end = size;
    if (n == PCRE2_ERROR_NOMATCH) return KH_OK;
    if (n < 0)
        KH_FAIL(n == PCRE2_ERROR_NOMEMORY || n == PCRE2_ERROR_HEAPLIMIT ? KH_ERR_MEMORY
                                                                        : KH_ERR_UNSUPPORTED,
                "pre-tokenizer \"%s\" gave up on %zu bytes of text (PCRE2 error %d)",
                c->pretok->entry->name, size, n);
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(c->match);
    *start = ends[0];
    *end = ends[1];
    return KH_OK;
}

/* Recursion is as deep as there are stages. The ends of a match are read before the next stage
 * overwrites them. */
static kh_status cut(const cutter *c, int stage, const char *text, size_t size)
{
    if (stage >= c->pretok->stages || stage >= STAGES) return c->word(c->context, text, size);
    size_t at = 0;
    while (at < size) {
        size_t start, end;
        KH_TRY(find(c, stage, text, size, at, &start, &end));
        if (start > at) KH_TRY(cut(c, stage + 1, text + at, start - at));
        if (end > start) KH_TRY(cut(c, stage + 1, text + start, end - start));
        at = end;
    }
    return KH_OK;
}

kh_status kh_pretok_split(const kh_pretok *pretok, kh_pretok_scratch *scratch, const char *text,
                          size_t size, kh_pretok_word *word, void *context)
{
    if (!scratch->match) scratch->match = pcre2_match_data_create(1, pretok->general);
    if (!scratch->match) KH_FAIL(KH_ERR_MEMORY, "no memory for matching a text of %zu bytes", size);
    cutter c = {pretok, scratch->match, word, context};
    return cut(&c, 0, text, size);
}

/* The pre-tokenizers that GGUF files name: regular expressions.
 *
 * A family is a short list of patterns, and each is a step of a splitter (tok_split.c) that cuts
 * every piece into its matches and the gaps between them. This is the sequence of "isolated"
 * splits of Hugging Face's tokenizers, from whose tokenizer.json files the patterns are known, and
 * the list of expressions of llama.cpp, from which the names are known. Where the two differ
 * (llama.cpp simplifies the letter cases of gpt-4o and tekken), the pattern that the model was
 * trained with is used; "default" exists in llama.cpp alone.
 *
 * White space is spelt out: PCRE2's \s, even with UCP, contains U+180E, which left the White_Space
 * property in Unicode 6.3; the engines that define these tokenizers do not match it. SPACE below
 * is that property.
 *
 * All patterns are single-character classes under quantifiers, so PCRE2's JIT runs them without a
 * stack that grows with the text, and a match that fails costs no more than the run it looked at.
 *
 * Letters, digits and marks are those of the installed PCRE2's Unicode version (10.42: Unicode
 * 14).
 *
 * Rejected: hand-written scanners (faster, but one for each family, and wrong in the corners). */
#include "tokens/pretok.h"

#include "base/fail.h"

#include <stdio.h>
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

int kh_pretok_at(size_t index, kh_pretok *out)
{
    if (index >= KNOWN) return 0;
    const struct known *k = &known[index];
    *out = (kh_pretok){k->name, (k->flags & WHOLE_WORDS) != 0, (k->flags & ADDS_BOS) != 0,
                       k->family};
    return 1;
}

const char *kh_pretok_pattern(const kh_pretok *pretok, int stage)
{
    return stage >= 0 && stage < STAGES ? patterns[pretok->family][stage] : NULL;
}

kh_status kh_pretok_add(kh_split *split, const kh_pretok *pretok)
{
    const char *const *list = patterns[pretok->family];
    char what[64];
    snprintf(what, sizeof what, "pre-tokenizer \"%s\"", pretok->name);
    for (int i = 0; i < STAGES && list[i]; ++i) {
        kh_split_step *step;
        KH_TRY(kh_split_add(split, KH_SPLIT_PATTERN, KH_SPLIT_ISOLATED, &step));
        KH_TRY(
            kh_regex_open(&step->regex, (kh_slice){list[i], strlen(list[i])}, KH_REGEX_PCRE, what));
    }
    return KH_OK;
}

kh_status kh_pretok_find(kh_pretok *out, kh_slice name)
{
    *out = (kh_pretok){.name = ""};
    if (!name.size) name = (kh_slice){"default", 7};
    for (size_t i = 0; kh_pretok_at(i, out); ++i)
        if (strlen(out->name) == name.size && !memcmp(out->name, name.data, name.size))
            return KH_OK;
    *out = (kh_pretok){.name = ""};
    return unknown(name);
}

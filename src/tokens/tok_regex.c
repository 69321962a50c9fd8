/* Regular expressions.
 *
 * Patterns are compiled with UTF and UCP and run by PCRE2's JIT; without executable memory the
 * interpreter matches. The subject has been validated, so matching skips its own check (which
 * would make a long text cost the square of its length). JIT's stack is the thread's 32 KiB; a
 * pattern that needs more is matched again by the interpreter. Patterns may come from a stranger's
 * file: matching is limited in steps and in memory, and ends with a sentence instead of hanging.
 *
 * tokenizer.json means Oniguruma's dialect (tok_dialect.c); the built-in pre-tokenizers are
 * written in PCRE2's own.
 *
 * Empty matches follow the iterators of the library: one is reported unless it touches the match
 * before, and the search goes on one character further. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokens/tok_regex.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "format/utf8.h"

#include <pcre2.h>

struct kh_regex {
    pcre2_general_context *general;
    pcre2_match_context *limits;
    pcre2_code *code;
    char *what;
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

static kh_status compile(kh_regex *r, const char *pattern, size_t size, uint32_t most_steps)
{
    r->general = pcre2_general_context_create(take, give, NULL);
    r->limits = r->general ? pcre2_match_context_create(r->general) : NULL;
    pcre2_compile_context *options = r->general ? pcre2_compile_context_create(r->general) : NULL;
    if (!r->limits || !options) {
        pcre2_compile_context_free(options);
        KH_FAIL(KH_ERR_MEMORY, "no memory for the pattern of %s", r->what);
    }
    pcre2_set_newline(options, PCRE2_NEWLINE_LF);
    pcre2_set_match_limit(r->limits, most_steps);
    pcre2_set_heap_limit(r->limits, 1u << 20); /* KiB */
    int error = 0;
    PCRE2_SIZE at = 0;
    r->code = pcre2_compile((PCRE2_SPTR)pattern, size, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE,
                            &error, &at, options);
    pcre2_compile_context_free(options);
    if (!r->code && error == PCRE2_ERROR_HEAP_FAILED)
        KH_FAIL(KH_ERR_MEMORY, "no memory for the pattern of %s", r->what);
    if (!r->code)
        KH_FAIL(KH_ERR_UNSUPPORTED, "PCRE2 refuses the pattern of %s (error %d at %zu)", r->what,
                error, (size_t)at);
    pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE);
    return KH_OK;
}

kh_status kh_regex_open(kh_regex **out, kh_slice pattern, kh_regex_dialect dialect,
                        const char *what)
{
    *out = NULL;
    kh_regex *r;
    kh_buf text = {0};
    KH_TRY(kh_new(&r, 1, sizeof *r, "a pattern"));
    kh_status status = KH_OK;
    if (!(r->what = kh_strdup(what))) status = kh_fail(KH_ERR_MEMORY, "no memory for a pattern");
    if (status == KH_OK)
        status = dialect == KH_REGEX_PCRE ? kh_buf_add(&text, pattern.data, pattern.size)
                                          : kh_regex_translate(&text, pattern, what);
    if (status == KH_OK)
        status = compile(r, text.data ? text.data : "", text.size,
                         dialect == KH_REGEX_PCRE ? 1u << 30 : 1u << 26);
    kh_buf_free(&text);
    if (status != KH_OK) {
        kh_regex_close(r);
        return status;
    }
    *out = r;
    return KH_OK;
}

void kh_regex_close(kh_regex *regex)
{
    if (!regex) return;
    pcre2_code_free(regex->code);
    pcre2_match_context_free(regex->limits);
    pcre2_general_context_free(regex->general);
    kh_free(regex->what);
    kh_free(regex);
}

void kh_regex_scratch_free(kh_regex_scratch *scratch)
{
    pcre2_match_data_free(scratch->match);
    scratch->match = NULL;
}

/* The result's memory is the first pattern's; all of one call's patterns belong to one tokenizer,
 * and their allocators are the same. */
static kh_status need_match(const kh_regex *regex, kh_regex_scratch *scratch)
{
    if (!scratch->match) scratch->match = pcre2_match_data_create(1, regex->general);
    if (!scratch->match)
        KH_FAIL(KH_ERR_MEMORY, "no memory for matching the pattern of %s", regex->what);
    return KH_OK;
}

kh_status kh_regex_find(const kh_regex *regex, kh_regex_scratch *scratch, const char *text,
                        size_t size, size_t from, int empty, kh_regex_span *out)
{
    KH_TRY(need_match(regex, scratch));
    unsigned options = PCRE2_NO_UTF_CHECK | (empty ? 0u : PCRE2_NOTEMPTY);
    int n = pcre2_match(regex->code, (PCRE2_SPTR)text, size, from, options, scratch->match,
                        regex->limits);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT)
        n = pcre2_match(regex->code, (PCRE2_SPTR)text, size, from, options | PCRE2_NO_JIT,
                        scratch->match, regex->limits);
    *out = (kh_regex_span){1, 0};
    if (n == PCRE2_ERROR_NOMATCH) return KH_OK;
    if (n < 0)
        KH_FAIL(n == PCRE2_ERROR_NOMEMORY || n == PCRE2_ERROR_HEAPLIMIT ? KH_ERR_MEMORY
                                                                        : KH_ERR_UNSUPPORTED,
                "the pattern of %s gave up on %zu bytes of text (PCRE2 error %d)", regex->what,
                size, n);
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(scratch->match);
    if (ends[1] < ends[0] || ends[0] < from) return KH_OK; /* \K inside a lookahead */
    *out = (kh_regex_span){ends[0], ends[1]};
    return KH_OK;
}

/* Finds the next match that the iterator reports, or sets `done`. */
static kh_status advance(const kh_regex *regex, kh_regex_scratch *scratch, const char *text,
                         size_t size, kh_regex_walk *walk)
{
    while (!walk->done && !walk->has) {
        kh_regex_span found = {1, 0};
        if (walk->from <= size)
            KH_TRY(kh_regex_find(regex, scratch, text, size, walk->from, 1, &found));
        if (found.start > found.end) {
            walk->done = 1;
            continue;
        }
        int empty = found.end == found.start;
        walk->from = found.end;
        if (empty)
            walk->from += found.end < size ? kh_utf8_next(text + found.end, size - found.end).size
                                           : 1;
        if (empty && walk->ended && found.start == walk->at) continue;
        walk->next = found;
        walk->has = 1;
    }
    return KH_OK;
}

kh_status kh_regex_next(const kh_regex *regex, kh_regex_scratch *scratch, const char *text,
                        size_t size, kh_regex_walk *walk, kh_regex_span *out, int *is_match)
{
    if (!walk->has) KH_TRY(advance(regex, scratch, text, size, walk));
    if (walk->has && walk->next.start <= walk->at) {
        *out = walk->next;
        *is_match = 1;
        walk->at = out->end;
        walk->has = 0;
        walk->ended = 1;
        return KH_OK;
    }
    size_t end = walk->has ? walk->next.start : size;
    *is_match = 0;
    *out = end > walk->at ? (kh_regex_span){walk->at, end} : (kh_regex_span){1, 0};
    walk->at = end;
    return KH_OK;
}

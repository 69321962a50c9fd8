/* Tokenizers made from text: the merges of PyPI's `tokenizers` on the same texts (tests/golden/bpe.jsonl),
 * a brute-force trainer on small ones, what is read and refused, and the folder that is written. */
#include "tokens/tok_train.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "support/golden_run.h"
#include "support/token_corpus.h"
#include "tokens/tok_export.h"
#include "tokens/tokenizer.h"

#include <jansson.h>
#include <keyhole/keyhole.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { MOST_SPECIAL = 8 };

static kh_gguf *finish(kh_tok_train *train, kh_tokenizer_train_result *result)
{
    kh_gguf *file;
    GOOD(kh_gguf_new(&file, "made"));
    GOOD(kh_tok_train_finish(train, file, result));
    kh_tok_train_close(train);
    return file;
}

static kh_gguf *learn(const char *text, size_t size, const kh_tokenizer_train_options *options,
                      kh_tokenizer_train_result *result)
{
    kh_tok_train *train;
    GOOD(kh_tok_train_open(&train, options, size));
    GOOD(kh_tok_train_add(train, text, size));
    return finish(train, result);
}

static kh_slice merge_at(const kh_gguf *file, size_t i)
{
    const kh_gguf_value *merges = kh_gguf_find(file, "tokenizer.ggml.merges");
    assert_non_null(merges);
    return i < merges->count ? merges->strings[i] : (kh_slice){"", 0};
}

static size_t merge_count(const kh_gguf *file)
{
    return (size_t)kh_gguf_find(file, "tokenizer.ggml.merges")->count;
}

/* ---- the goldens ---- */

/* As tools/golden_bpe.py makes them. */
static void add_letters(kh_tok_train *train)
{
    kh_buf text = {0};
    uint32_t x = 1;
    for (int i = 0; i < 400; ++i) {
        if (i) GOOD(kh_buf_add(&text, " ", 1));
        x = x * 1664525u + 1013904223u;
        for (uint32_t n = 1 + (x >> 16) % 40; n; --n) {
            x = x * 1664525u + 1013904223u;
            GOOD(kh_buf_add(&text, (x >> 20) % 5 ? "a" : "b", 1));
        }
    }
    GOOD(kh_tok_train_add(train, text.data, text.size));
    kh_buf_free(&text);
}

static void add_texts(kh_tok_train *train, const char *from)
{
    if (strcmp(from, "letters") == 0) {
        add_letters(train);
    } else if (strcmp(from, "novel") == 0) {
        kh_map novel;
        GOOD(kh_map_open(&novel, "examples/persuasion.txt"));
        GOOD(kh_tok_train_add(train, (const char *)novel.data, novel.size));
        kh_map_close(&novel);
    } else {
        size_t n;
        const kh_corpus_line *lines = kh_corpus(&n);
        for (size_t i = 0; i < n; ++i) GOOD(kh_tok_train_add(train, lines[i].data, lines[i].size));
    }
}

static void compare(const json_t *g, const kh_gguf *file)
{
    const json_t *want = json_object_get(g, "merges");
    for (size_t i = 0; i < json_array_size(want); ++i) {
        const char *text = json_string_value(json_array_get(want, i));
        kh_slice got = merge_at(file, i);
        if (strlen(text) != got.size || memcmp(text, got.data, got.size) != 0)
            fail_msg("%s, %s: merge %zu is '%.*s', expected '%s'",
                     json_string_value(json_object_get(g, "from")),
                     json_string_value(json_object_get(g, "pre")), i, (int)got.size, got.data,
                     text);
    }
    assert_int_equal(merge_count(file), json_array_size(want));
}

static void as_in_tokenizers(void **state)
{
    (void)state;
    FILE *goldens = fopen(golden_path("bpe.jsonl"), "r");
    assert_non_null(goldens);
    int cases = 0;
    for (json_t *g; (g = kh_corpus_json_line(goldens)) != NULL; json_decref(g), ++cases) {
        const char *special[MOST_SPECIAL];
        const json_t *texts = json_object_get(g, "special");
        kh_tokenizer_train_options o = {
            .vocabulary = (size_t)json_integer_value(json_object_get(g, "vocabulary")),
            .least = (uint64_t)json_integer_value(json_object_get(g, "least")),
            .pretoken = json_string_value(json_object_get(g, "pre")),
            .special = special,
            .special_count = json_array_size(texts),
            .no_special = json_array_size(texts) == 0};
        for (size_t i = 0; i < o.special_count; ++i)
            special[i] = json_string_value(json_array_get(texts, i));
        kh_tok_train *train;
        kh_tokenizer_train_result result;
        GOOD(kh_tok_train_open(&train, &o, 0));
        add_texts(train, json_string_value(json_object_get(g, "from")));
        kh_gguf *file = finish(train, &result);
        compare(g, file);
        assert_int_equal(result.vocabulary, json_integer_value(json_object_get(g, "tokens")));
        assert_int_equal(result.merges, merge_count(file));
        assert_int_equal(result.asked, o.vocabulary);
        kh_gguf_close(file);
    }
    assert_int_equal(cases, 4);
    fclose(goldens);
}

/* ---- brute force ---- */

/* Words of the letters a to d, each followed by '.', which the pre-tokenizer cuts off. Counts all pairs anew for
 * every merge. Only for texts in which every piece has one way to arise. */
enum { WORDS = 60, LONGEST = 6, MERGES = 12 };

typedef struct brute {
    int symbols[WORDS][LONGEST], sizes[WORDS];
    char pieces[MERGES + 4][LONGEST + 1];
    int count;
} brute;

static int count_pair(const brute *b, int left, int right)
{
    int n = 0;
    for (int w = 0; w < WORDS; ++w)
        for (int i = 0; i + 1 < b->sizes[w]; ++i)
            n += b->symbols[w][i] == left && b->symbols[w][i + 1] == right;
    return n;
}

static void merge_pair(brute *b, int left, int right)
{
    for (int w = 0; w < WORDS; ++w) {
        int kept = 0, *s = b->symbols[w];
        for (int i = 0; i < b->sizes[w]; ++kept)
            if (i + 1 < b->sizes[w] && s[i] == left && s[i + 1] == right) {
                s[kept] = b->count;
                i += 2;
            } else
                s[kept] = s[i++];
        b->sizes[w] = kept;
    }
    char made[2 * LONGEST + 1];
    snprintf(made, sizeof made, "%s%s", b->pieces[left], b->pieces[right]);
    memcpy(b->pieces[b->count++], made, LONGEST + 1);
}

static void as_by_counting(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 20; ++seed) {
        brute b = {.count = 4, .pieces = {"a", "b", "c", "d"}};
        char text[WORDS * (LONGEST + 2)];
        size_t n = 0;
        uint32_t x = seed;
        for (int w = 0; w < WORDS; ++w) {
            for (int i = 0; i < 3; ++i) {
                x = x * 1664525u + 1013904223u;
                b.symbols[w][b.sizes[w]++] = (int)(x >> 24) % 4;
                text[n++] = (char)('a' + (x >> 24) % 4);
            }
            text[n++] = '.';
        }
        kh_tokenizer_train_options o = {.vocabulary = 256 + MERGES, .least = 1, .no_special = 1};
        kh_gguf *file = learn(text, n, &o, NULL);
        for (int m = 0; m < MERGES; ++m) {
            int best = 0, left = 0, right = 0;
            for (int i = 0; i < b.count; ++i)
                for (int j = 0; j < b.count; ++j)
                    if (count_pair(&b, i, j) > best) {
                        best = count_pair(&b, i, j);
                        left = i;
                        right = j;
                    }
            char want[2 * LONGEST + 2];
            snprintf(want, sizeof want, "%s %s", b.pieces[left], b.pieces[right]);
            kh_slice got = merge_at(file, (size_t)m);
            if (got.size != strlen(want) || memcmp(got.data, want, got.size) != 0)
                fail_msg("seed %u, merge %d: '%.*s', expected '%s'", seed, m, (int)got.size,
                         got.data, want);
            merge_pair(&b, left, right);
        }
        kh_gguf_close(file);
    }
}

/* ---- what comes out ---- */

static void same_ids(const kh_tokenizer *a, const kh_tokenizer *b)
{
    size_t n;
    const kh_corpus_line *lines = kh_corpus(&n);
    for (size_t i = 0; i < n; i++)
        for (unsigned flags = 0; flags < 4; flags++) {
            kh_tokens x = {0}, y = {0};
            GOOD(kh_tokenize(a, &x, lines[i].data, lines[i].size, flags));
            GOOD(kh_tokenize(b, &y, lines[i].data, lines[i].size, flags));
            assert_int_equal(x.count, y.count);
            if (x.count) assert_memory_equal(x.ids, y.ids, x.count * sizeof *x.ids);
            kh_tokens_free(&x);
            kh_tokens_free(&y);
        }
}

/* Text, ids, text. */
static void comes_back(const kh_tokenizer *t, const char *text, size_t size)
{
    kh_tokens ids = {0};
    kh_detokenizer state = {0};
    kh_buf out = {0};
    GOOD(kh_tokenize(t, &ids, text, size, KH_TOKENIZE_SPECIAL | KH_TOKENIZE_EDGES));
    for (size_t i = 0; i < ids.count; ++i)
        GOOD(kh_detokenize(t, &state, &out, ids.ids[i], KH_TOKENIZE_SPECIAL));
    GOOD(kh_detokenize_end(&state, &out));
    assert_int_equal(out.size, size);
    assert_memory_equal(out.data, text, size);
    kh_detokenizer_free(&state);
    kh_buf_free(&out);
    kh_tokens_free(&ids);
}

static void drop(const char *folder)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "a", "b.jsonl"};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(folder), 0);
}

/* The composed file, the folder and the folder in GGUF's words are one tokenizer. */
static void one_tokenizer(const kh_gguf *file)
{
    static const char hard[] = "A key, \xC3\xA9t\xC3\xA9; <|endoftext|>\n\n  \xF0\x9F\x98\x80\0.";
    char folder[] = "/tmp/keyhole-train-XXXXXX";
    kh_tokenizer *made, *read, *again;
    kh_gguf *described;
    GOOD(kh_tokenizer_open(&made, file));
    assert_non_null(mkdtemp(folder));
    GOOD(kh_tokenizer_export(file, folder));
    GOOD(kh_tokenizer_open_folder(&read, folder));
    GOOD(kh_gguf_new(&described, "composed"));
    GOOD(kh_tokenizer_describe(read, described));
    GOOD(kh_tokenizer_open(&again, described));
    same_ids(made, read);
    same_ids(made, again);
    assert_memory_equal(kh_tokenizer_special(made), kh_tokenizer_special(read),
                        sizeof(kh_special_ids));
    comes_back(made, hard, sizeof hard - 1);
    kh_tokenizer_close(again);
    kh_tokenizer_close(read);
    kh_tokenizer_close(made);
    kh_gguf_close(described);
    drop(folder);
}

static const char prose[] = "The key is in the door. The door is in the wall. The wall is old, "
                            "the key is new; the keys, the doors and the walls. 1234 1234";

static void it_is_a_tokenizer(void **state)
{
    (void)state;
    static const char *const pres[] = {"gpt-2", "smollm",  "llama-bpe",
                                       "qwen2", "default", "deepseek-v3"};
    for (size_t i = 0; i < sizeof pres / sizeof *pres; ++i) {
        kh_tokenizer_train_options o = {.vocabulary = 300, .pretoken = pres[i]};
        kh_tokenizer_train_result r;
        kh_gguf *file = learn(prose, sizeof prose - 1, &o, &r);
        kh_tokenizer *t;
        one_tokenizer(file);
        GOOD(kh_tokenizer_open(&t, file));
        assert_string_equal(kh_tokenizer_pre(t), pres[i]);
        assert_int_equal(kh_tokenizer_size(t), r.vocabulary);
        kh_tokens ids = {0};
        GOOD(kh_tokenize(t, &ids, prose, sizeof prose - 1, KH_TOKENIZE_EDGES));
        assert_int_equal(ids.count, r.tokens); /* what it says of its own text */
        kh_tokens_free(&ids);
        assert_int_equal(r.bytes, sizeof prose - 1);
        kh_tokenizer_close(t);
        kh_gguf_close(file);
    }
}

static void bytes_are_ids(void **state)
{
    (void)state;
    static const char *const special[] = {"pad=<pad>", "cls,bos=<cls>"};
    kh_tokenizer_train_options o = {.kind = "bytes", .special = special, .special_count = 2};
    kh_tok_train *train;
    kh_tokenizer_train_result r;
    GOOD(kh_tok_train_open(&train, &o, 0));
    assert_false(kh_tok_train_reads(train));
    assert_int_equal(kh_tok_train_add(train, "a", 1), KH_ERR_ARGUMENT);
    kh_gguf *file = finish(train, &r);
    kh_tokenizer *t;
    GOOD(kh_tokenizer_open(&t, file));
    assert_int_equal(r.vocabulary, 258);
    kh_tokens ids = {0};
    GOOD(kh_tokenize(t, &ids, "h\xC3\xA9 \n<pad>", 10, KH_TOKENIZE_SPECIAL | KH_TOKENIZE_EDGES));
    const int32_t want[] = {'h', 0xC3, 0xA9, ' ', '\n', 256};
    assert_int_equal(ids.count, 6);
    assert_memory_equal(ids.ids, want, sizeof want);
    kh_tokens_free(&ids);
    for (int byte = 0; byte < 256; ++byte) {
        kh_buf out = {0};
        GOOD(kh_token_bytes(t, &out, byte, 0, 0));
        assert_int_equal(out.size, 1);
        assert_int_equal((uint8_t)out.data[0], byte);
        kh_buf_free(&out);
    }
    const kh_special_ids *s = kh_tokenizer_special(t);
    assert_int_equal(s->pad, 256);
    assert_int_equal(s->cls, 257);
    assert_int_equal(s->bos, 257);
    assert_int_equal(s->eos, -1);
    kh_tokenizer_close(t);
    one_tokenizer(file);
    kh_gguf_close(file);
}

static void specials(void **state)
{
    (void)state;
    static const char *const special[] = {"bos,eos=<|e|>", "pad=<|e|>", "plain", "ros=x"};
    kh_tokenizer_train_options o = {.vocabulary = 280, .special = special, .special_count = 4};
    kh_tokenizer_train_result r;
    kh_gguf *file = learn(prose, sizeof prose - 1, &o, &r);
    kh_tokenizer *t;
    GOOD(kh_tokenizer_open(&t, file));
    assert_int_equal(r.special, 3);
    const kh_special_ids *s = kh_tokenizer_special(t);
    assert_true(s->bos == 0 && s->eos == 0 && s->pad == 0 && s->unk == -1);
    assert_int_equal(kh_token_find(t, "plain", 5), 1);
    assert_int_equal(kh_token_find(t, "ros=x", 5), 2);
    for (int id = 0; id < 4; ++id)
        assert_int_equal(kh_token_get_kind(t, id), id < 3 ? KH_TOKEN_CONTROL : KH_TOKEN_NORMAL);
    assert_true(kh_token_ends(t, 0));
    kh_tokenizer_close(t);
    kh_gguf_close(file);
}

/* ---- texts ---- */

static void fewer_than_asked(void **state)
{
    (void)state;
    kh_tokenizer_train_options o = {.vocabulary = 1000, .least = 1};
    kh_tokenizer_train_result r;
    kh_gguf *file = learn("keyhole", 7, &o, &r);
    assert_int_equal(r.merges, 6);
    assert_int_equal(r.vocabulary, 257 + 6);
    assert_int_equal(r.asked, 1000);
    assert_int_equal(r.tokens, 1);
    kh_gguf_close(file);
    o.least = 0; /* 2: "e" is the only letter that comes twice */
    file = learn("keyhole", 7, &o, &r);
    assert_int_equal(r.merges, 0);
    one_tokenizer(file);
    kh_gguf_close(file);
}

static void one_long_word(void **state)
{
    (void)state;
    enum { SIZE = 1 << 20 };
    char *text = malloc(SIZE);
    assert_non_null(text);
    memset(text, 'a', SIZE);
    kh_tokenizer_train_options o = {.vocabulary = 1000};
    kh_tokenizer_train_result r;
    kh_gguf *file = learn(text, SIZE, &o, &r);
    assert_int_equal(r.distinct, 1);
    assert_int_equal(r.merges, 19); /* the last pair occurs once */
    kh_slice first = merge_at(file, 0), second = merge_at(file, 1);
    assert_true(first.size == 3 && memcmp(first.data, "a a", 3) == 0);
    assert_true(second.size == 5 && memcmp(second.data, "aa aa", 5) == 0);
    kh_gguf_close(file);
    free(text);
}

static void ill_formed_is_replaced(void **state)
{
    (void)state;
    static const char bad[] = "ab\xFF\xC3 ab\xFF\xC3 ab";
    static const char good[] = "ab\xEF\xBF\xBD\xEF\xBF\xBD ab\xEF\xBF\xBD\xEF\xBF\xBD ab";
    kh_tokenizer_train_options o = {.vocabulary = 270};
    kh_tokenizer_train_result r;
    kh_gguf *a = learn(bad, sizeof bad - 1, &o, &r), *b;
    assert_int_equal(r.ill_formed, 1);
    b = learn(good, sizeof good - 1, &o, &r);
    assert_int_equal(r.ill_formed, 0);
    assert_int_equal(merge_count(a), merge_count(b));
    for (size_t i = 0; i < merge_count(a); ++i) {
        kh_slice x = merge_at(a, i), y = merge_at(b, i);
        assert_true(x.size == y.size && memcmp(x.data, y.data, x.size) == 0);
    }
    kh_gguf_close(a);
    kh_gguf_close(b);
}

static void refused(kh_status want, const char *sentence, kh_tokenizer_train_options options)
{
    kh_tok_train *train;
    assert_int_equal(kh_tok_train_open(&train, &options, 0), want);
    assert_null(train);
    if (!strstr(kh_last_error(), sentence))
        fail_msg("expected '%s' in '%s'", sentence, kh_last_error());
}

static void what_is_wrong_is_refused(void **state)
{
    (void)state;
    typedef kh_tokenizer_train_options options;
    static const char *const empty[] = {"eos="}, *const twice[] = {"eos=a1", "eos=b1"},
                             *const letter[] = {"\xC4\xA0"}, *const latin[] = {"\xE9t\xE9"};
    refused(KH_ERR_ARGUMENT, "need 257", (options){.vocabulary = 256});
    refused(KH_ERR_ARGUMENT, "need 256", (options){.vocabulary = 1, .no_special = 1});
    refused(KH_ERR_ARGUMENT, "are the most", (options){.vocabulary = (size_t)1 << 40});
    refused(KH_ERR_ARGUMENT, "'wordpiece'", (options){.kind = "wordpiece"});
    refused(KH_ERR_UNSUPPORTED, "gpt-2", (options){.pretoken = "gpt5"});
    refused(KH_ERR_ARGUMENT, "learns nothing", (options){.kind = "bytes", .vocabulary = 300});
    refused(KH_ERR_ARGUMENT, "has no text", (options){.special = empty, .special_count = 1});
    refused(KH_ERR_ARGUMENT, "'b1' is the second", (options){.special = twice, .special_count = 2});
    refused(KH_ERR_ARGUMENT, "written as", (options){.special = letter, .special_count = 1});
    refused(KH_ERR_ARGUMENT, "not UTF-8", (options){.special = latin, .special_count = 1});
    refused(KH_ERR_ARGUMENT, "at once",
            (options){.special = twice, .special_count = 1, .no_special = 1});
    kh_tok_train *train;
    kh_gguf *file;
    GOOD(kh_tok_train_open(&train, NULL, 0));
    GOOD(kh_gguf_new(&file, "made"));
    GOOD(kh_tok_train_add(train, "", 0));
    assert_int_equal(kh_tok_train_finish(train, file, NULL), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "no text to learn from: 1 texts"));
    kh_gguf_close(file);
    kh_tok_train_close(train);
}

/* ---- files ---- */

static void write_file(const char *path, const char *text)
{
    size_t size = strlen(text);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, size, file), size);
    fclose(file);
}

static int stop_at_once(void *context, const char *stage, uint64_t done, uint64_t all)
{
    (void)done;
    (void)all;
    return strcmp(stage, context) == 0;
}

static void from_files(void **state)
{
    (void)state;
    static const char lines[] = "{\"text\": \"the key\"}\n\n{\"text\": \"the door\", \"n\": 1}";
    char folder[] = "/tmp/keyhole-train-XXXXXX", a[64], b[64], stage[] = "merging";
    assert_non_null(mkdtemp(folder));
    snprintf(a, sizeof a, "%s/a", folder);
    snprintf(b, sizeof b, "%s/b.jsonl", folder);
    write_file(a, prose);
    write_file(b, lines);
    const char *const files[] = {a, b};
    kh_tokenizer_train_options o = {.vocabulary = 270};
    kh_tokenizer_train_result r;
    o.progress = stop_at_once;
    o.progress_context = stage;
    assert_int_equal(kh_tokenizer_train(folder, files, 2, &o, &r), KH_ERR_STOPPED);
    o.progress = NULL;
    GOOD(kh_tokenizer_train(folder, files, 2, &o, &r));
    assert_int_equal(r.documents, 3);
    assert_int_equal(r.bytes, sizeof prose - 1 + 7 + 8);
    assert_int_equal(kh_tokenizer_train(folder, files, 2, &o, &r), KH_ERR_STATE);
    o.overwrite = 1;
    GOOD(kh_tokenizer_train(folder, files, 1, &o, NULL));
    write_file(b, "{\"text\": \"x\"}\n{\"txt\": \"x\"}\n");
    assert_int_equal(kh_tokenizer_train(folder, files, 2, &o, &r), KH_ERR_FORMAT);
    assert_non_null(strstr(kh_last_error(), "b.jsonl, line 2: \"text\" is nothing"));
    write_file(a, "");
    assert_int_equal(kh_tokenizer_train(folder, files, 1, &o, &r), KH_ERR_ARGUMENT);
    assert_int_equal(kh_tokenizer_train("/nonexistent/x", files + 1, 0, &o, &r), KH_ERR_ARGUMENT);
    drop(folder);
    kh_corpus_free();
}

/* The n-th allocation fails, for every n. */
static void memory_may_end(void **state)
{
    (void)state;
    kh_tokenizer_train_options o = {.vocabulary = 265};
    uint64_t live = kh_alloc_get_stats().live, n = 0;
    kh_status status;
    do {
        kh_tok_train *train = NULL;
        kh_gguf *file = NULL;
        kh_alloc_fail_at(++n);
        status = kh_tok_train_open(&train, &o, 0);
        if (status == KH_OK) status = kh_tok_train_add(train, "ab\xFF ab ab abc abc", 17);
        if (status == KH_OK) status = kh_gguf_new(&file, "made");
        if (status == KH_OK) status = kh_tok_train_finish(train, file, NULL);
        kh_alloc_fail_at(0);
        assert_true(status == KH_OK || status == KH_ERR_MEMORY);
        kh_gguf_close(file);
        kh_tok_train_close(train);
        assert_int_equal(kh_alloc_get_stats().live, live);
    } while (status != KH_OK);
    assert_true(n > 30);
}

static int setup(void **state)
{
    (void)state;
    json_set_alloc_funcs(kh_alloc, kh_free);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_in_tokenizers),
        cmocka_unit_test(as_by_counting),
        cmocka_unit_test(it_is_a_tokenizer),
        cmocka_unit_test(bytes_are_ids),
        cmocka_unit_test(specials),
        cmocka_unit_test(fewer_than_asked),
        cmocka_unit_test(one_long_word),
        cmocka_unit_test(ill_formed_is_replaced),
        cmocka_unit_test(what_is_wrong_is_refused),
        cmocka_unit_test(memory_may_end),
        cmocka_unit_test(from_files),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}

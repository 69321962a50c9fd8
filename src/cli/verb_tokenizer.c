/* keyhole tokenizer train: a tokenizer made from text, as a Hugging Face folder. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <string.h>

static const char *const kinds[] = {"bpe", "bytes", NULL};
enum { BPE, BYTES };

static int progress(void *context, const char *stage, uint64_t done, uint64_t all)
{
    (void)context;
    if (strcmp(stage, "reading") == 0)
        cli_progress_bytes(stage, done, all > done ? all : done);
    else
        cli_progress(NULL, stage, (size_t)done, (size_t)all);
    return cli_interrupted();
}

static kh_status print_json(const cli_args *args, const kh_tokenizer_train_result *r)
{
    return cli_json_print(json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "folder",
        args->output, "kind", kinds[args->kind], "vocabulary", (json_int_t)r->vocabulary, "asked",
        (json_int_t)r->asked, "special", (json_int_t)r->special, "merges", (json_int_t)r->merges,
        "documents", (json_int_t)r->documents, "ill_formed", (json_int_t)r->ill_formed, "bytes",
        (json_int_t)r->bytes, "words", (json_int_t)r->words, "distinct", (json_int_t)r->distinct,
        "tokens", (json_int_t)r->tokens, "bytes_per_token",
        wire_real((double)r->bytes / (double)r->tokens), "seconds", wire_real(r->seconds)));
}

static void print_text(const cli_args *args, const kh_tokenizer_train_result *r)
{
    char bytes[32];
    cli_out("%s: %zu tokens", args->output, r->vocabulary);
    if (args->kind == BPE)
        cli_out(" (%zu merges) from %s, %.2f bytes a token there", r->merges,
                cli_bytes(bytes, sizeof bytes, r->bytes), (double)r->bytes / (double)r->tokens);
    cli_out("\n");
}

static void print_notes(const kh_tokenizer_train_result *r, uint64_t least)
{
    if (r->ill_formed)
        cli_note("%llu of %llu texts are not UTF-8 throughout: U+FFFD was read in its place",
                 (unsigned long long)r->ill_formed, (unsigned long long)r->documents);
    if (r->vocabulary < r->asked)
        cli_note("the text gave %zu merges: %zu tokens instead of %zu; no further pair occurs "
                 "%llu times%s",
                 r->merges, r->vocabulary, r->asked, (unsigned long long)least,
                 least > 1 ? " (--min-frequency)" : "");
}

static kh_status check(const cli_args *args, size_t count)
{
    if (!args->output) KH_FAIL(KH_ERR_ARGUMENT, "no folder was named for the tokenizer: -o FOLDER");
    if (args->kind == BPE && !count)
        KH_FAIL(KH_ERR_ARGUMENT,
                "no text was named: keyhole tokenizer train -o FOLDER FILE... (-: standard input)");
    return KH_OK;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    KH_TRY(check(args, count));
    kh_tokenizer_train_result result;
    kh_tokenizer_train_options options = {.kind = kinds[args->kind],
                                          .vocabulary = (size_t)args->vocabulary,
                                          .least = (uint64_t)args->least,
                                          .pretoken = args->pretoken,
                                          .special = args->special.items,
                                          .special_count = args->special.count,
                                          .no_special = args->no_special,
                                          .overwrite = args->force,
                                          .progress = progress};
    cli_signals_await(1);
    kh_status status = kh_tokenizer_train(args->output, words, count, &options, &result);
    cli_signals_await(0);
    cli_progress_end();
    KH_TRY(status);
    if (args->json)
        KH_TRY(print_json(args, &result));
    else
        print_text(args, &result);
    print_notes(&result, args->least ? (uint64_t)args->least : 2);
    return KH_OK;
}

static const kh_opt learned[] = {
    CLI_CHOICE(kind, "--kind", "KIND",
               "bpe learns merges of bytes; bytes is a token for each byte and learns nothing",
               "bpe", kinds, NULL),
    CLI_INT(vocabulary, "--vocab --vocab-size", "N",
            "tokens in all, the 256 bytes and special tokens included; 0 is 8192", "0", 0, 1 << 24,
            NULL),
    CLI_INT(least, "--min-frequency", "N",
            "a pair that the text has less often is not merged; 0 is 2", "0", 0, 4294967295.0,
            NULL),
    CLI_TEXT(pretoken, "--pre", "NAME",
             "how text is cut into words before merging, by the names of GGUF: gpt-2, qwen2, "
             "llama-bpe, smollm ... (default: gpt-2)",
             NULL),
    CLI_TEXTS(special, "--special", "[ROLE,...=]TEXT",
              "a special token, with its roles: bos, eos, unk, pad, sep, cls, mask (default: "
              "bos,eos=<|endoftext|>)"),
    CLI_FLAG(no_special, "--no-special", "no special tokens"),
    CLI_END};
static const kh_opt result_options[] = {
    CLI_TEXT(output, "-o --output", "FOLDER",
             "where tokenizer.json and tokenizer_config.json go; made where it is missing", NULL),
    CLI_FLAG(force, "-f --force", "replaces a tokenizer that exists"), CLI_END};
static const kh_opt_group groups[] = {{"Tokenizer", learned},
                                      {"Result", result_options},
                                      {"Output", cli_options_output},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_tokenizer = {
    .group = "Files",
    .command =
        {.name = "tokenizer train",
         .does = "a tokenizer made from text",
         .words = "[FILE...]",
         .most_words = (size_t)-1,
         .about =
             "Learns a byte-level BPE tokenizer from files and writes it as a Hugging Face "
             "folder. A file is one text; of NAME.jsonl the \"text\" of each line is. The pair "
             "of neighbours that occurs most often is merged, of equal ones the one with the "
             "smaller ids, as in PyPI's tokenizers: the same text gives the same merges.\n\n"
             "Ids: special tokens first, then the 256 bytes, then merges; with --kind bytes a "
             "byte is its own id, and special tokens begin at 256.\n\n"
             "With --json: {folder, kind, vocabulary, asked, special, merges, documents, "
             "ill_formed, bytes, words, distinct, tokens, bytes_per_token, seconds}.",
         .example = "keyhole tokenizer train --vocab 8192 -o folder/ novel.txt\n"
                    "keyhole tokenizer train -o folder/ --pre qwen2 --special \"eos=<|im_end|>\" "
                    "--special \"pad=<|pad|>\" *.jsonl\n"
                    "keyhole tokenizer train --kind bytes -o bytes/ --special \"pad=<pad>\"",
         .groups = groups},
    .run = run,
};

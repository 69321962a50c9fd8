/* keyhole tokenize: text to ids and pieces, ids to text, and files to a shard for training. Opens only
 * the vocabulary of a file, so it is quick and works on vocabulary files that have no tensors. Pieces
 * are shown with what cannot be printed escaped, as the bytes they are. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static kh_status print_json(const kh_model *model, const int32_t *ids, size_t count)
{
    json_t *pieces = json_array();
    for (size_t i = 0; i < count && pieces; i++) {
        char piece[256];
        size_t n = kh_model_piece(model, ids[i], piece, sizeof piece);
        json_t *text = wire_text(piece, n < sizeof piece ? n : sizeof piece);
        if (json_array_append_new(pieces, text) != 0) {
            json_decref(pieces);
            pieces = NULL;
        }
    }
    return cli_json_print(json_pack("{s:I, s:o, s:o}", "count", (json_int_t)count, "ids",
                                    wire_ids(ids, count), "pieces", pieces));
}

static void print_piece(const char *bytes, size_t n)
{
    cli_out("\"");
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c == '\n')
            cli_out("\\n");
        else if (c == '"' || c == '\\')
            cli_out("\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            cli_out("\\x%02x", c);
        else
            cli_out_bytes(bytes + i, 1);
    }
    cli_out("\"\n");
}

static void print_ids(const kh_model *model, const cli_args *args, const int32_t *ids, size_t count)
{
    for (size_t i = 0; i < count && !cli_out_closed(); i++) {
        if (args->ids_only) {
            cli_out("%d\n", ids[i]);
            continue;
        }
        char piece[256];
        size_t n = kh_model_piece(model, ids[i], piece, sizeof piece);
        cli_out("%7d  ", ids[i]);
        print_piece(piece, n < sizeof piece ? n : sizeof piece);
    }
    if (!args->ids_only && !cli_quiet) cli_say("%zu tokens", count);
}

/* Ids written as words, with blanks or commas between. */
static kh_status parse_ids(const char *text, int vocabulary, kh_buf *list)
{
    for (const char *at = text + strspn(text, " ,\t\r\n[]"); *at;) {
        char *end;
        errno = 0;
        long id = strtol(at, &end, 10);
        if (end == at || errno || id < 0 || id >= vocabulary || !strchr(" ,\t\r\n[]", *end))
            KH_FAIL(KH_ERR_ARGUMENT, "--decode: '%.*s' is not a token id from 0 to %d",
                    (int)strcspn(at, " ,\t\r\n[]"), at, vocabulary - 1);
        int32_t value = (int32_t)id;
        KH_TRY(kh_buf_add(list, &value, sizeof value));
        at = end + strspn(end, " ,\t\r\n[]");
    }
    return KH_OK;
}

static kh_status decode(const kh_model *model, cli_args *args, const char **words, size_t count)
{
    int vocabulary = kh_model_get_info(model)->vocabulary;
    kh_buf list = {0}, text = {0};
    kh_status status = KH_OK;
    if (count == 0) status = cli_read_text(&text, args, NULL);
    if (status == KH_OK && text.size) status = parse_ids(text.data, vocabulary, &list);
    for (size_t i = 0; i < count && status == KH_OK; i++)
        status = parse_ids(words[i], vocabulary, &list);
    char *out = NULL;
    size_t size = 0;
    if (status == KH_OK)
        status = kh_model_detokenize(model, (const int32_t *)(void *)list.data,
                                     list.size / sizeof(int32_t),
                                     args->no_special ? 0 : KH_TEXT_SPECIAL, &out, &size);
    if (status == KH_OK && args->json)
        status = cli_json_print(json_pack("{s:I, s:o}", "count",
                                          (json_int_t)(list.size / sizeof(int32_t)), "text",
                                          wire_text(out, size)));
    else if (status == KH_OK) {
        cli_out_bytes(out, size);
        cli_out_bytes("\n", size == 0 || out[size - 1] != '\n');
    }
    kh_free_text(out);
    kh_buf_free(&list);
    kh_buf_free(&text);
    return status;
}

static kh_status encode(const kh_model *model, cli_args *args, const char **words, size_t count)
{
    if (count > 1)
        KH_FAIL(KH_ERR_ARGUMENT, "'%s': one argument too many; put the text in quotes", words[1]);
    unsigned flags = (args->no_special ? 0u : KH_TEXT_SPECIAL) |
                     (args->no_edges ? 0u : KH_TEXT_EDGES);
    kh_buf text = {0};
    int32_t *ids = NULL;
    size_t id_count = 0;
    kh_status status = cli_read_text(&text, args, count ? words[0] : NULL);
    if (status == KH_OK)
        status = kh_model_tokenize(model, text.data, text.size, flags, &ids, &id_count);
    if (status == KH_OK && args->json)
        status = print_json(model, ids, id_count);
    else if (status == KH_OK)
        print_ids(model, args, ids, id_count);
    kh_free_ids(ids);
    kh_buf_free(&text);
    return status;
}

static kh_status write_shard(const kh_model *model, const cli_args *args, const char **words,
                             size_t count)
{
    if (!count)
        KH_FAIL(KH_ERR_ARGUMENT, "--shard: name the files and folders to read behind the model");
    kh_shard_options options = {.documents = cli_documents(args), .overwrite = args->force};
    if (args->no_edges) options.documents.bos = options.documents.eos = KH_EDGE_OMIT;
    kh_shard_result result;
    KH_TRY(kh_shard_make(model, args->shard, words, count, &options, &result));
    if (args->json)
        return cli_json_print(
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "file", args->shard, "files",
                      (json_int_t)result.files, "documents", (json_int_t)result.documents, "empty",
                      (json_int_t)result.empty, "tokens", (json_int_t)result.tokens, "bytes",
                      (json_int_t)result.bytes));
    char bytes[32];
    if (!cli_quiet)
        cli_say("%s: %llu documents (%llu with nothing to learn), %llu tokens, %s", args->shard,
                (unsigned long long)result.documents, (unsigned long long)result.empty,
                (unsigned long long)result.tokens, cli_bytes(bytes, sizeof bytes, result.bytes));
    return KH_OK;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    cli_take_model(args, &words, &count);
    kh_model *model = NULL;
    KH_TRY(cli_model_open(&model, args, 1));
    kh_status status = args->shard    ? write_shard(model, args, words, count)
                       : args->decode ? decode(model, args, words, count)
                                      : encode(model, args, words, count);
    kh_model_close(model);
    return status;
}

static const kh_opt input[] = {
    CLI_TEXT(prompt, "-p --prompt", "TEXT", "the text, instead of the last word", NULL),
    CLI_TEXT(file, "-f --file", "FILE", "reads the text from a file, or standard input (-)", NULL),
    CLI_FLAG(decode, "-d --decode", "the other way: the words are ids, the output is their text"),
    CLI_FLAG(no_special, "--no-special",
             "reads markers such as <|im_end|> as plain text; with --decode hides them"),
    CLI_FLAG(no_edges, "--no-edges --no-bos", "no bos in front, whatever the file asks for"),
    CLI_END};
static const kh_opt shard[] = {
    CLI_TEXT(shard, "--shard", "OUT.khtok",
             "writes files and folders (text, .jsonl, .khtok) as tokens for training", NULL),
    CLI_FLAG(force, "--force", "replaces a shard that is there"), CLI_END};
static const kh_opt output[] = {CLI_FLAG(ids_only, "--ids", "prints ids only, one a line"),
                                CLI_FLAG(json, "--json", "prints {count, ids, pieces}"),
                                CLI_FLAG(quiet, "-q --quiet", "nothing on standard error"),
                                CLI_END};
static const kh_opt_group groups[] = {
    {"Model", cli_options_model},         {"Input", input},   {"Shard", shard},
    {"Documents", cli_options_documents}, {"Output", output}, CLI_NO_GROUP};

const cli_verb cli_verb_tokenize = {
    .group = "Files",
    .command =
        {.name = "tokenize",
         .does = "ids and pieces of a text, and back",
         .words = "[MODEL] [TEXT | ID... | FILE...]",
         .most_words = (size_t)-1,
         .about =
             "Prints the tokens of a text, one a line, as the file's own tokenizer "
             "defines them; with --decode, the text of token ids; with --shard, the documents of "
             "files as a shard for training (docs/training.md).",
         .example = "keyhole tokenize -m model.gguf \"Hello, world\"\n"
                    "keyhole tokenize -m model.gguf --decode 19556 28 905\n"
                    "keyhole tokenize -m model.gguf --shard corpus.khtok texts/ more.jsonl",
         .groups = groups},
    .run = run,
};

/* keyhole: the verbs, and what surrounds them: help, version, the bare form, exit codes.
 *
 * Exit codes: 0 done (or the reader of a pipe went away), 1 it could not be done, 2 bad usage, 130
 * stopped by Ctrl-C. A failure is one line on standard error, "keyhole: sentence"; after bad usage a
 * second line says where the help is. */
#include "cli/cli.h"
#include "cli/docs.h"

#include "base/fail.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

const cli_verb *const cli_verbs[] = {
    &cli_verb_run,          &cli_verb_chat,        &cli_verb_ask,
    &cli_verb_serve,        &cli_verb_embed,       &cli_verb_fill,
    &cli_verb_qa,           &cli_verb_lens,        &cli_verb_why,
    &cli_verb_neurons,      &cli_verb_heads,       &cli_verb_search,
    &cli_verb_edit,         &cli_verb_patch,       &cli_verb_steer,
    &cli_verb_diff,         &cli_verb_trace,       &cli_verb_labels,
    &cli_verb_ppl,          &cli_verb_eval,        &cli_verb_bench,
    &cli_verb_recall,       &cli_verb_attention,   &cli_verb_decode,
    &cli_verb_select,       &cli_verb_ff,          &cli_verb_stack,
    &cli_verb_kernels,      &cli_verb_report,      &cli_verb_calibrate,
    &cli_verb_show,         &cli_verb_tokenize,    &cli_verb_tokenizer,
    &cli_verb_convert,      &cli_verb_verify,      &cli_verb_pull,
    &cli_verb_task,         &cli_verb_train,       &cli_verb_tune,
    &cli_verb_train_report, &cli_verb_bench_train, NULL,
};

/* The verb that argv begins with, of one or two words; *words receives how many. */
static const cli_verb *find_verb(int argc, char **argv, int *words)
{
    const cli_verb *found = NULL;
    for (size_t i = 0; cli_verbs[i]; i++) {
        const char *name = cli_verbs[i]->command.name, *space = strchr(name, ' ');
        size_t n = space ? (size_t)(space - name) : strlen(name);
        if (strlen(argv[0]) != n || memcmp(argv[0], name, n) != 0) continue;
        if (space && (argc < 2 || strcmp(argv[1], space + 1) != 0)) continue;
        found = cli_verbs[i];
        *words = space ? 2 : 1;
        if (space) break;
    }
    return found;
}

static int finish(const char *verb, kh_status status)
{
    if (status == KH_OK) status = cli_out_flush();
    if (cli_out_closed()) return 0;
    cli_progress_end();
    if (status != KH_OK && status != KH_ERR_STOPPED) cli_error("%s", kh_last_error());
    if (status == KH_ERR_ARGUMENT)
        cli_say("Type keyhole %s%s--help for help.", verb, *verb ? " " : "");
    return kh_status_exit(status);
}

static kh_status print(kh_buf *page, kh_status status)
{
    if (status == KH_OK) cli_out_bytes(page->data, page->size);
    kh_buf_free(page);
    return status;
}

static kh_status print_help(const cli_verb *verb)
{
    kh_buf page = {0};
    return print(&page, verb ? kh_opt_help(&page, "keyhole", &verb->command, cli_width())
                             : cli_overview(&page, cli_width()));
}

static kh_status print_version(void)
{
    cli_out("keyhole %s (%s)\ninstruction set: %s\nlibraries: %s\n", kh_version(), kh_commit(),
            kh_instruction_set(), kh_libraries());
    return KH_OK;
}

/* keyhole help [--man | --verbs] [VERB]: the flags are for the build. */
static kh_status help(int argc, char **argv)
{
    int man = argc > 0 && strcmp(argv[0], "--man") == 0, words = 0;
    if (argc > 0 && strcmp(argv[0], "--verbs") == 0) {
        for (size_t i = 0; cli_verbs[i]; i++) cli_out("%s\n", cli_verbs[i]->command.name);
        return KH_OK;
    }
    argc -= man;
    argv += man;
    const cli_verb *verb = argc > 0 ? find_verb(argc, argv, &words) : NULL;
    if (argc > 0 && !verb) KH_FAIL(KH_ERR_ARGUMENT, "'%s' is not a verb", argv[0]);
    if (!man) return print_help(verb);
    kh_buf page = {0};
    return print(&page, verb ? kh_opt_man(&page, "keyhole", &verb->command, kh_version())
                             : cli_man(&page, kh_version()));
}

static kh_status completion(int argc, char **argv)
{
    kh_buf page = {0};
    if (argc != 1) KH_FAIL(KH_ERR_ARGUMENT, "completion: name a shell: bash, zsh or fish");
    return print(&page, cli_complete(&page, argv[0]));
}

static kh_status run_verb(const cli_verb *verb, int argc, char **argv)
{
    cli_args args = {.verb = verb->command.name, .argc = argc, .argv = argv};
    kh_opt_result result;
    kh_status status = kh_opt_parse(&verb->command, &args, argc, argv, &result);
    cli_quiet = args.quiet;
    if (status == KH_OK && result.help) {
        status = print_help(verb);
    } else if (status == KH_OK) {
        if (result.ignored.size) cli_note("%s: accepted, without effect here", result.ignored.data);
        status = verb->run(&args, result.words, result.word_count);
    }
    kh_opt_free(&verb->command, &args, &result);
    return status;
}

static const char *nearest_verb(const char *word)
{
    const char *nearest = NULL;
    size_t least = 3, size = strlen(word);
    for (size_t i = 0; cli_verbs[i]; i++) {
        const char *name = cli_verbs[i]->command.name;
        size_t distance = kh_opt_distance(word, size, name, strlen(name));
        if (distance < least && distance < size) {
            least = distance;
            nearest = name;
        }
    }
    return nearest;
}

/* What is no verb: a model file as the only argument, or a mistake. */
static kh_status bare(int argc, char **argv)
{
    size_t n = strlen(argv[0]);
    int is_file = access(argv[0], F_OK) == 0;
    int looks = is_file || strchr(argv[0], '/') || (n > 5 && strcmp(argv[0] + n - 5, ".gguf") == 0);
    if (argv[0][0] == '-')
        KH_FAIL(KH_ERR_ARGUMENT, "%s: a verb comes first, such as keyhole run -m FILE.gguf",
                argv[0]);
    if (looks && !is_file)
        KH_FAIL(KH_ERR_NOT_FOUND,
                "%s: there is no such file; type keyhole run -m FILE.gguf (scripts/models obtains "
                "a model to begin with)",
                argv[0]);
    if (looks && argc == 1) return run_verb(&cli_verb_serve, argc, argv);
    if (looks)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: a verb comes first: type keyhole run %s \"a prompt\"",
                argv[0], argv[0]);
    const char *nearest = nearest_verb(argv[0]);
    if (nearest) KH_FAIL(KH_ERR_ARGUMENT, "'%s' is not a verb; did you mean %s?", argv[0], nearest);
    KH_FAIL(KH_ERR_ARGUMENT, "'%s' is not a verb", argv[0]);
}

static int nothing(void)
{
    kh_buf page = {0};
    cli_error("type keyhole run -m FILE.gguf -p \"a prompt\" (scripts/models obtains a model to "
              "begin with)");
    if (cli_verb_list(&page, cli_width()) == KH_OK) cli_say("%s", page.data);
    kh_buf_free(&page);
    return 2;
}

int main(int argc, char **argv)
{
    wire_setup();
    cli_signals();
    if (argc < 2) return nothing();
    char **rest = argv + 1;
    int count = argc - 1, words = 0;
    const char *first = rest[0];
    const cli_verb *verb = find_verb(count, rest, &words);
    if (verb) return finish(verb->command.name, run_verb(verb, count - words, rest + words));
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0)
        return finish("", print_help(NULL));
    if (strcmp(first, "help") == 0) return finish("", help(count - 1, rest + 1));
    if (strcmp(first, "--version") == 0 || strcmp(first, "version") == 0)
        return finish("", print_version());
    if (strcmp(first, "completion") == 0) return finish("", completion(count - 1, rest + 1));
    return finish("", bare(count, rest));
}

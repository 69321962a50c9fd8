/* keyhole serve: a model behind HTTP, with the page. Also what the bare form, keyhole model.gguf, means.
 *
 * Opens the model, tells the server what it is allowed to do, prints the address, and waits. The first Ctrl-C (or
 * SIGTERM) lets running answers finish, the second leaves at once. What the routes are is docs/server.md. */
#include "cli/cli.h"
#include "cli/steering.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"
#include "server/server.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

static server *_Atomic running;
static atomic_int asked;

static void on_signal(int number)
{
    server *s = atomic_load(&running);
    if (!s || atomic_fetch_add(&asked, 1) > 0) _exit(number == SIGTERM ? 143 : 130);
    server_stop(s);
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* Threads come and go with connections; a heap for each of them would keep what the busiest moment needed. */
static void share_heaps(void)
{
#ifdef __GLIBC__
    mallopt(M_ARENA_MAX, 2);
#endif
}

static kh_status check_folder(const char *path)
{
    struct stat info;
    if (!path) return KH_OK;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode))
        KH_FAIL(KH_ERR_NOT_FOUND, "--slot-save-path %s: there is no such folder", path);
    return KH_OK;
}

static int is_loopback(const char *host)
{
    return !host || strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
           strcmp(host, "::1") == 0;
}

static kh_status serve(const cli_args *args, const kh_model *model, const char *template_text,
                       const server_vector *vectors, size_t vector_count)
{
    server *s = NULL;
    server_options options = {.host = args->host,
                              .port = (int)args->port,
                              .keys = args->api_keys.items,
                              .key_count = args->api_keys.count,
                              .cors_origin = args->cors_origin,
                              .slot_folder = args->slot_save_path,
                              .labels = args->labels,
                              .alias = args->alias,
                              .slots = (size_t)args->parallel,
                              .timeout = (int)args->timeout,
                              .no_page = args->no_webui,
                              .vectors = vectors,
                              .vector_count = vector_count,
                              .session = cli_session_options(args),
                              .chat_format = args->chat_template,
                              .chat_template = template_text,
                              .chat_kwargs = args->chat_template_kwargs};
    options.session.attn = args->attn;
    cli_explain_auto(model, args, args->attn);
    if (!is_loopback(args->host) && args->api_keys.count == 0)
        cli_note("everybody who reaches %s may use this server: --api-key asks for a key",
                 args->host);
    KH_TRY(server_open(&s, model, &options));
    atomic_store(&running, s);
    catch_signals();
    if (!cli_quiet)
        cli_say("keyhole serves %s at %s (Ctrl-C ends)", kh_model_get_info(model)->path,
                server_address(s));
    kh_status status = server_run(s);
    atomic_store(&running, NULL);
    server_close(s);
    return status;
}

static kh_status serve_steered(const cli_args *args, const kh_model *model,
                               const char *template_text)
{
    cli_vector_file *files = NULL;
    server_vector *vectors = NULL;
    size_t count = 0;
    KH_TRY(cli_vector_files(&files, &count, args));
    kh_status status = kh_new(&vectors, count + 1, sizeof *vectors, "control vectors");
    for (size_t i = 0; i < count && status == KH_OK; i++)
        vectors[i] = (server_vector){files[i].path, files[i].scale, files[i].first, files[i].last};
    if (status == KH_OK) status = serve(args, model, template_text, vectors, count);
    kh_free(vectors);
    cli_vector_files_free(files, count);
    return status;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    enum { LARGEST = 16 << 20 };
    kh_model *model = NULL;
    char *template = NULL, *labels = NULL;
    size_t size = 0;
    share_heaps();
    cli_take_model(args, &words, &count);
    if (count) KH_FAIL(KH_ERR_ARGUMENT, "'%s': serve takes a model and nothing else", words[0]);
    if (args->chat_template && args->chat_template_file)
        KH_FAIL(KH_ERR_ARGUMENT, "--chat-template and --chat-template-file exclude each other");
    for (size_t i = 0; i < args->api_keys.count; i++)
        if (!args->api_keys.items[i][0]) KH_FAIL(KH_ERR_ARGUMENT, "--api-key: the key is empty");
    KH_TRY(check_folder(args->slot_save_path));
    kh_status status = args->chat_template_file
                           ? kh_file_read(&template, &size, args->chat_template_file, LARGEST)
                           : KH_OK;
    if (status == KH_OK) status = cli_labels_path(&labels, args);
    if (status == KH_ERR_NOT_FOUND) status = KH_OK; /* the routes of labels say so */
    args->labels = labels;
    if (status == KH_OK) status = cli_model_open(&model, args, 0);
    if (status == KH_OK) status = serve_steered(args, model, template);
    kh_model_close(model);
    kh_free(template);
    kh_free(labels);
    return status;
}

static const kh_opt options[] = {
    CLI_TEXT(host, "--host", "ADDRESS", "where to listen; other than this machine: with --api-key",
             "LLAMA_ARG_HOST"),
    CLI_INT(port, "--port", "N", "the port; 0 is any free one", "8080", 0, 65535, "LLAMA_ARG_PORT"),
    CLI_TEXTS(api_keys, "--api-key", "KEY",
              "a key that requests must bring (Authorization: Bearer KEY); may be given again"),
    CLI_TEXT(cors_origin, "--cors-origin", "ORIGIN",
             "lets pages of one other origin ask, such as http://localhost:3000", NULL),
    CLI_INT(parallel, "-np --parallel", "N", "answers that grow at the same time, in one pass", "4",
            1, 64, "LLAMA_ARG_N_PARALLEL"),
    CLI_INT(timeout, "-to --timeout", "N", "seconds for which a connection may stand still", "60",
            1, 86400, "LLAMA_ARG_TIMEOUT"),
    CLI_TEXT(alias, "-a --alias", "NAME", "what the model is called; default: its file's name",
             "LLAMA_ARG_ALIAS"),
    CLI_TEXT(slot_save_path, "--slot-save-path", "FOLDER",
             "where POST /slots/{id} saves and restores sessions; without it, it does not", NULL),
    CLI_TEXT(labels, "--labels", "FILE",
             "where labels of parts and saved views are kept; default: "
             "~/.local/share/keyhole/labels.sqlite, made when there is something to keep",
             NULL),
    CLI_FLAG(no_webui, "--no-webui --no-ui", "routes only, without the page"),
    CLI_END};

static const kh_opt template[] = {
    CLI_TEXT(chat_template, "--chat-template", "NAME",
             "a known chat format, instead of the file's own template", "LLAMA_ARG_CHAT_TEMPLATE"),
    CLI_TEXT(chat_template_file, "--chat-template-file", "FILE",
             "a Jinja template, instead of the file's own", "LLAMA_ARG_CHAT_TEMPLATE_FILE"),
    CLI_TEXT(chat_template_kwargs, "--chat-template-kwargs", "JSON",
             "variables of the template, as an object: {\"enable_thinking\": false}",
             "LLAMA_CHAT_TEMPLATE_KWARGS"),
    CLI_END};

static const kh_opt output[] = {CLI_FLAG(quiet, "-q --quiet", "nothing on standard error"),
                                CLI_FLAG(verbose, "-v --verbose", "says more about the model"),
                                CLI_END};

static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Server", options},
                                      {"Chat format", template},
                                      {"Attention", cli_options_attn},
                                      {"Feed-forward", cli_options_ff},
                                      {"Steering", cli_options_steering},
                                      {"Context", cli_options_context},
                                      {"Computation", cli_options_compute},
                                      {"Output", output},
                                      {"Known from llama.cpp", cli_options_known},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_serve = {
    .group = "Use",
    .command =
        {.name = "serve",
         .does = "a page and an HTTP interface",
         .words = "[MODEL]",
         .most_words = 1,
         .about =
             "Answers OpenAI's and llama-server's routes, and serves the page that looks into the "
             "model, at http://127.0.0.1:8080. keyhole model.gguf does the same. Answers grow "
             "together, a token of each in one pass.\n\nCtrl-C lets running answers finish for "
             "some seconds; a second one ends at once. The routes are in docs/server.md and at "
             "/openapi.json.",
         .example = "keyhole serve -m model.gguf\n"
                    "keyhole serve model.gguf --port 8090 --api-key secret -np 8",
         .groups = groups},
    .run = run,
};

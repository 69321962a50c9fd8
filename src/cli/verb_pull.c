/* keyhole pull: a model by name, from a hub into the cache that its other clients use too. Prints where
 * it is, and nothing else, so that a shell can use it: keyhole run -m "$(keyhole pull NAME)". */
#include "cli/cli.h"

#include "base/fail.h"

#include <stdio.h>
#include <string.h>

static json_t *text(const char *t)
{
    return wire_text(t, strlen(t));
}

static json_t *model_json(const kh_hub_model *m)
{
    json_t *files = json_array();
    for (size_t i = 0; i < m->count && files; i++) {
        const kh_hub_file *f = &m->files[i];
        json_t *one = json_pack("{s:o, s:o, s:I, s:b}", "name", text(f->name), "path",
                                text(f->path), "bytes", (json_int_t)f->size, "cached", f->cached);
        if (json_array_append_new(files, one) != 0) {
            json_decref(files);
            files = NULL;
        }
    }
    return json_pack("{s:o, s:o, s:s, s:o, s:b, s:I, s:I, s:o, s:o}", "repository",
                     text(m->repository), "revision", text(m->revision), "commit", m->commit,
                     "path", text(m->path), "folder", m->is_folder, "bytes", (json_int_t)m->bytes,
                     "fetched", (json_int_t)m->fetched, "files", files, "notice", text(m->notice));
}

/* ---- --list ---- */

typedef struct listing {
    json_t *json;
    cli_table table;
    size_t count;
    int failed;
} listing;

static int list_one(void *context, const kh_hub_model *m)
{
    listing *l = context;
    char bytes[32];
    l->count++;
    if (l->json) {
        l->failed |= json_array_append_new(l->json, model_json(m)) != 0;
        return l->failed;
    }
    if (l->count == 1) cli_table_row(&l->table, "model\tcommit\tfiles\tsize");
    int is_main = strcmp(m->revision, "main") == 0;
    cli_table_row(&l->table, "%s%s%s:%s\t%.8s\t%zu\t%s", m->repository, is_main ? "" : "@",
                  is_main ? "" : m->revision, m->is_folder ? "safetensors" : m->files[0].name,
                  m->commit, m->count, cli_bytes(bytes, sizeof bytes, m->bytes));
    return 0;
}

static kh_status list(const cli_args *args)
{
    listing l = {0};
    if (args->json && !(l.json = json_array())) KH_FAIL(KH_ERR_MEMORY, "no memory for the list");
    kh_status status = kh_hub_cached(NULL, list_one, &l);
    if (status == KH_OK && l.failed) status = kh_fail(KH_ERR_MEMORY, "no memory for the list");
    if (status == KH_OK && args->json) return cli_json_print(l.json);
    json_decref(l.json);
    if (status == KH_OK && !args->json && l.count == 0) cli_note("the cache holds no model");
    kh_status printed = cli_table_print(&l.table);
    return status == KH_OK ? printed : status;
}

/* ---- a model ---- */

static kh_status print_plan(const kh_hub_model *m)
{
    cli_table table = {0};
    char bytes[32];
    cli_table_row(&table, "file\tsize\tstate");
    for (size_t i = 0; i < m->count; i++)
        cli_table_row(&table, "%s\t%s\t%s", m->files[i].name,
                      cli_bytes(bytes, sizeof bytes, m->files[i].size),
                      m->files[i].cached ? "cached" : "to fetch");
    KH_TRY(cli_table_print(&table));
    if (!cli_quiet)
        cli_say("%s at %.8s: %s to fetch", m->repository, m->commit,
                cli_bytes(bytes, sizeof bytes, m->fetched));
    return KH_OK;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    if (args->list && count) KH_FAIL(KH_ERR_ARGUMENT, "--list takes no name, found '%s'", words[0]);
    if (args->list) return list(args);
    if (count == 0)
        KH_FAIL(KH_ERR_ARGUMENT, "no model was named: type keyhole pull OWNER/MODEL[:QUANT]");
    kh_hub_model *m = NULL;
    double start = cli_seconds();
    KH_TRY(cli_hub_pull(&m, args, words[0], args->dry_run ? KH_HUB_DRY : 0));
    double seconds = cli_seconds() - start;
    kh_status status = KH_OK;
    if (args->json) {
        status = cli_json_print(model_json(m));
    } else if (args->dry_run) {
        status = print_plan(m);
    } else {
        char bytes[32], rate[32];
        if (m->fetched && !cli_quiet)
            cli_say("%s fetched in %.1f s, %s/s", cli_bytes(bytes, sizeof bytes, m->fetched),
                    seconds,
                    cli_bytes(rate, sizeof rate, (uint64_t)((double)m->fetched / seconds)));
        cli_out("%s\n", m->path);
    }
    kh_hub_model_free(m);
    return status;
}

static const kh_opt what[] = {
    CLI_FLAG(dry_run, "--dry-run", "says what would be fetched, and fetches nothing"),
    CLI_FLAG(list, "--list", "lists the models that the cache holds"),
    CLI_FLAG(offline, "--offline", "asks no hub: the cache or nothing; also HF_HUB_OFFLINE=1"),
    CLI_INT(tries, "--tries", "N",
            "how often a request is tried that brings nothing, with growing waits between", "6", 1,
            100, NULL),
    CLI_END};
static const kh_opt output[] = {
    CLI_FLAG(json, "--json", "prints {repository, revision, commit, path, files, ...}"),
    CLI_FLAG(quiet, "-q --quiet", "no notes, progress or summary on standard error"), CLI_END};
static const kh_opt_group groups[] = {{"Models", what}, {"Output", output}, CLI_NO_GROUP};

const cli_verb cli_verb_pull = {
    .group = "Files",
    .command = {.name = "pull",
                .does = "a model from a hub, by name, into the shared cache",
                .words = "OWNER/MODEL[@REVISION][:QUANT or FILE]",
                .most_words = 1,
                .about =
                    "Brings a model into the cache that other programs use too, and prints its "
                    "path. Without a quantisation: Q4_K_M, or else Q8_0, or else the first GGUF "
                    "file, with all its parts; without GGUF files, or with :safetensors, the "
                    "folder that opening the model needs.\n\n"
                    "An interrupted pull goes on where it was. Files are checked against the "
                    "hub's SHA-256 (small ones: git's hash) before they get their name.\n\n"
                    "Environment: HF_ENDPOINT (another hub), HF_TOKEN or HF_TOKEN_PATH (sent to "
                    "the hub alone), HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME (where the cache "
                    "is), HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT (seconds without data), "
                    "HTTPS_PROXY.",
                .example = "keyhole pull ggml-org/SmolLM2-135M-Instruct-GGUF:Q8_0\n"
                           "keyhole run -hf ggml-org/SmolLM2-135M-Instruct-GGUF:Q8_0 \"Hello\"\n"
                           "keyhole pull --list",
                .groups = groups},
    .run = run,
};

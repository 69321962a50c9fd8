/* The page of keyhole bench report, and of --report: curves in one HTML file that loads nothing.
 *
 *   page   web/dist/report.html up to "@data@" | the results as JSON | the rest
 *   JSON   {version, commit, command, runs: [{machine, command, results: [{impl, attn, pass, L, ...}]}]}
 *
 * The page is built from web/ and part of the program; it arranges, compares and draws. What comes here
 * is checked for the few fields without which nothing can be drawn, so that a wrong file is a sentence
 * of the program and not an empty page; all other fields pass through, peers may add their own.
 *
 * The JSON stands inside a script element, which "</script" or "<!--" in a text would end or upset. JSON
 * has "<" inside strings only, and there \u003c means the same: every "<" is written so. */
#include "cli/report.h"

#include "cli/pages.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"

#include <string.h>

static const size_t most_bytes = (size_t)64 << 20; /* of a file with results */
static const char mark[] = "\"@data@\"";

/* ---- results ---- */

static kh_status check_row(const json_t *row, size_t index, const char *name)
{
    static const char *const texts[] = {"impl", "attn", "pass"};
    static const char *const numbers[] = {"seconds_min", "seconds_median", "peak_bytes"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!json_is_string(json_object_get(row, texts[i])))
            KH_FAIL(KH_ERR_FORMAT, "%s: results[%zu]: \"%s\" is no text", name, index, texts[i]);
    if (json_integer_value(json_object_get(row, "L")) <= 0)
        KH_FAIL(KH_ERR_FORMAT, "%s: results[%zu]: \"L\" is no length", name, index);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const json_t *value = json_object_get(row, numbers[i]);
        if (value && !json_is_number(value) && !json_is_null(value))
            KH_FAIL(KH_ERR_FORMAT, "%s: results[%zu]: \"%s\" is no number", name, index,
                    numbers[i]);
    }
    return KH_OK;
}

kh_status cli_report_add(json_t *runs, json_t *document, const char *name)
{
    const json_t *results = json_object_get(document, "results");
    const json_t *machine = json_object_get(document, "machine");
    if (!json_is_array(results))
        KH_FAIL(KH_ERR_FORMAT, "%s: the list \"results\" is missing", name);
    if (machine && !json_is_object(machine))
        KH_FAIL(KH_ERR_FORMAT, "%s: \"machine\" is no object", name);
    for (size_t i = 0; i < json_array_size(results); i++)
        KH_TRY(check_row(json_array_get(results, i), i, name));
    if (json_array_append(runs, document) != 0)
        KH_FAIL(KH_ERR_MEMORY, "no memory for the results of %s", name);
    return KH_OK;
}

kh_status cli_report_read(json_t *runs, const char *path)
{
    char *text = NULL;
    size_t size = 0;
    json_error_t error;
    KH_TRY(kh_file_read(&text, &size, path, most_bytes));
    json_t *document = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    kh_free(text);
    if (!document && json_error_code(&error) == json_error_out_of_memory)
        KH_FAIL(KH_ERR_MEMORY, "no memory for the results of %s", path);
    if (!document) KH_FAIL(KH_ERR_FORMAT, "%s: line %d: no JSON: %s", path, error.line, error.text);
    kh_status status = cli_report_add(runs, document, path);
    json_decref(document);
    return status;
}

/* ---- the page ---- */

typedef struct sheet {
    kh_outfile *file; /* NULL: standard output */
    kh_status status;
} sheet;

static kh_status put(sheet *out, const void *bytes, size_t n)
{
    if (out->file) return kh_outfile_write(out->file, bytes, n);
    cli_out_bytes(bytes, n);
    return KH_OK;
}

static int put_json(const char *text, size_t n, void *context)
{
    sheet *out = context;
    for (size_t i = 0, k; i < n && out->status == KH_OK; i = k) {
        for (k = i; k < n && text[k] != '<';) k++;
        out->status = put(out, text + i, k - i);
        if (k == n || out->status != KH_OK) continue;
        out->status = put(out, "\\u003c", 6);
        k++;
    }
    return out->status == KH_OK ? 0 : -1;
}

static kh_status put_page(sheet *out, const json_t *data)
{
    const char *page = (const char *)cli_page_report, *hole = strstr(page, mark);
    if (!hole) KH_FAIL(KH_ERR_UNSUPPORTED, "the page of this build has no place for results");
    const char *rest = hole + sizeof mark - 1;
    KH_TRY(put(out, page, (size_t)(hole - page)));
    int failed = json_dump_callback(data, put_json, out,
                                    JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(12));
    KH_TRY(out->status);
    if (failed) KH_FAIL(KH_ERR_MEMORY, "no memory for the results of the page");
    return put(out, rest, cli_page_report_size - (size_t)(rest - page));
}

kh_status cli_report_write(const char *path, json_t *runs, const cli_args *args)
{
    sheet out = {0};
    kh_buf command = {0};
    kh_status status = cli_command(&command, args);
    json_t *data = NULL;
    if (status == KH_OK &&
        !(data = json_pack("{s:s, s:s, s:o, s:O}", "version", kh_version(), "commit", kh_commit(),
                           "command", cli_json_text(command.data, command.size), "runs", runs)))
        status = kh_fail(KH_ERR_MEMORY, "no memory for the results of the page");
    if (status == KH_OK && strcmp(path, "-") != 0) status = kh_outfile_open(&out.file, path);
    if (status == KH_OK) status = put_page(&out, data);
    if (status == KH_OK && out.file) {
        status = kh_outfile_commit(out.file);
        if (status == KH_OK && !cli_quiet) cli_say("wrote %s", path);
    } else {
        kh_outfile_abandon(out.file);
    }
    json_decref(data);
    kh_buf_free(&command);
    return status;
}

/* ---- verbs that measure ---- */

kh_status cli_results_begin(json_t **results, const cli_args *args)
{
    *results = NULL;
    if (args->json && args->csv)
        KH_FAIL(KH_ERR_ARGUMENT, "--json and --csv are two forms of one output: choose one");
    if (args->report && strcmp(args->report, "-") == 0)
        KH_FAIL(KH_ERR_ARGUMENT, "--report names a file: standard output is for the rows");
    if (args->report) {
        kh_outfile *file = NULL;
        KH_TRY(kh_outfile_open(&file, args->report));
        kh_outfile_abandon(file);
    }
    if (!args->json && !args->report) return KH_OK;
    if (!(*results = json_array())) KH_FAIL(KH_ERR_MEMORY, "no memory for the results");
    return KH_OK;
}

static json_t *machine_json(const kh_bench_machine *m)
{
    return json_pack("{s:o, s:s, s:i, s:I, s:o, s:o, s:o}", "cpu",
                     cli_json_text(m->cpu, strlen(m->cpu)), "isa", m->isa, "cores", m->cores,
                     "memory_bytes", (json_int_t)m->memory_bytes, "gigaflops_per_core",
                     cli_json_real(m->gigaflops), "read_gigabytes", cli_json_real(m->gigabytes),
                     "read_gigabytes_all", cli_json_real(m->gigabytes_all));
}

static kh_status write_one(json_t *document, const cli_args *args)
{
    json_t *runs = json_array();
    kh_status status = runs ? cli_report_add(runs, document, "the results")
                            : kh_fail(KH_ERR_MEMORY, "no memory for the results of the page");
    if (status == KH_OK) status = cli_report_write(args->report, runs, args);
    json_decref(runs);
    return status;
}

kh_status cli_results_end(json_t *results, const kh_bench_machine *machine, const cli_args *args,
                          kh_status status)
{
    kh_buf command = {0};
    if (status == KH_OK && results) status = cli_command(&command, args);
    if (status != KH_OK || !results) {
        kh_buf_free(&command);
        json_decref(results);
        return status;
    }
    json_t *document = json_pack("{s:o, s:o, s:o}", "machine", machine_json(machine), "results",
                                 results, "command", cli_json_text(command.data, command.size));
    kh_buf_free(&command);
    if (!document) KH_FAIL(KH_ERR_MEMORY, "no memory for the results");
    if (args->json) status = cli_json_print(json_incref(document));
    if (status == KH_OK && args->report) status = write_one(document, args);
    json_decref(document);
    return status;
}

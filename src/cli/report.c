/* The page of keyhole bench report, and of --report: curves of benchmarks.
 *
 *   runs   [{machine, command, results: [{impl, attn, pass, L, ...}]}], as cli_page_write takes them
 *
 * The page arranges, compares and draws. What comes here is checked for the few fields without which
 * nothing can be drawn, so that a wrong file is a sentence of the program and not an empty page; all
 * other fields pass through, peers may add their own. */
#include "cli/report.h"

#include "cli/pages.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"

#include <string.h>

static const size_t most_bytes = (size_t)64 << 20; /* of a file with results */

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

kh_status cli_report_write(const char *path, json_t *runs, const cli_args *args)
{
    return cli_page_write(path, cli_page_report, cli_page_report_size, runs, args);
}

/* ---- verbs that measure ---- */

kh_status cli_results_begin(json_t **results, const cli_args *args)
{
    *results = NULL;
    if (args->json && args->csv)
        KH_FAIL(KH_ERR_ARGUMENT, "--json and --csv are two forms of one output: choose one");
    KH_TRY(cli_page_check(args->report));
    if (!args->json && !args->report) return KH_OK;
    if (!(*results = json_array())) KH_FAIL(KH_ERR_MEMORY, "no memory for the results");
    return KH_OK;
}

kh_status cli_results_machine(json_t **results, kh_bench_machine *m, const cli_args *args)
{
    KH_TRY(cli_results_begin(results, args));
    KH_TRY(kh_bench_machine_measure(m));
    if (args->json) return KH_OK;
    cli_out("%s%s, %d cores (%s), %.0f GiB; %.0f GFLOP/s a core\n%s",
            args->csv ? "# machine: " : "", m->cpu, m->cores, m->isa,
            (double)m->memory_bytes / (1 << 30), m->gigaflops, args->csv ? "" : "\n");
    return cli_out_flush();
}

static json_t *machine_json(const kh_bench_machine *m)
{
    return json_pack("{s:o, s:s, s:i, s:I, s:o, s:o, s:o}", "cpu",
                     wire_text(m->cpu, strlen(m->cpu)), "isa", m->isa, "cores", m->cores,
                     "memory_bytes", (json_int_t)m->memory_bytes, "gigaflops_per_core",
                     wire_real(m->gigaflops), "read_gigabytes", wire_real(m->gigabytes),
                     "read_gigabytes_all", wire_real(m->gigabytes_all));
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
                                 results, "command", wire_text(command.data, command.size));
    kh_buf_free(&command);
    if (!document) KH_FAIL(KH_ERR_MEMORY, "no memory for the results");
    if (args->json) status = cli_json_print(json_incref(document));
    if (status == KH_OK && args->report) status = write_one(document, args);
    json_decref(document);
    return status;
}

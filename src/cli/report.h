/* cli/report.h: results of benchmarks as JSON and as a page of curves. */
#ifndef KH_CLI_REPORT_H
#define KH_CLI_REPORT_H

#include "cli/cli.h"

/* Appends a document {machine, results, ...} to the list `runs`, which gains a reference. A document
 * without what the page needs is KH_ERR_FORMAT; the sentence begins with `name`. */
kh_status cli_report_add(json_t *runs, json_t *document, const char *name);
/* Reads a document ("-": standard input) and appends it. */
kh_status cli_report_read(json_t *runs, const char *path);
/* Writes the page over `runs` to path, whole or not at all; "-": standard output. Says so on standard
 * error. */
kh_status cli_report_write(const char *path, json_t *runs, const cli_args *args);

/* The two ends of a verb that measures rows. In front of the first: *results is a list where --json or
 * --report wants one, else NULL; a page that cannot be written is refused before the work. */
kh_status cli_results_begin(json_t **results, const cli_args *args);
/* The same, and the machine, measured; its line is printed where rows are. For verbs whose rows do arithmetic. */
kh_status cli_results_machine(json_t **results, kh_bench_machine *machine, const cli_args *args);
/* Behind the last: prints and writes what was asked for. Takes `results`, which may be NULL; returns
 * `status` if that is a failure. */
kh_status cli_results_end(json_t *results, const kh_bench_machine *machine, const cli_args *args,
                          kh_status status);

#endif

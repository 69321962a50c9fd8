/* The page of training runs: what their folders hold, as columns, in front of web/training.html.
 *
 *   RUN/config.json, RUN/metrics.jsonl  ->  {folder, config, train, eval, last, last_eval, best}
 *   train, eval                         ->  {lines, each, step: [...], loss: [...], loss_low: [...], ...}
 *
 * A picture has some hundred pixels and a run may have a million lines. Beyond MOST_POINTS, `each` lines that follow
 * one another become one point: their mean, as a logged loss is itself the mean since the line before it, beside the
 * lowest and the highest of what shows trouble; step, seconds and tokens are those of the last line. The page says so.
 * `last` and `best` are lines as they were written.
 *
 * Seconds and tokens per second count from the beginning of a process. A run that was resumed has several, and a
 * number that falls begins the next one: here both add up, and tokens stand in place of their rate, so that the rate
 * between any two points is known however many lines lie between them.
 *
 * A run may be going on while it is read: a last line without its end is left for the next time. Any other line that
 * is broken is named; lines with neither a loss nor an evaluation are somebody else's and are passed over. */
#include "cli/pages.h"
#include "cli/training.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_POINTS = 2000 };
static const size_t most_bytes = (size_t)1 << 30; /* of metrics.jsonl */

/* What becomes of neighbours: the last one's value, their mean, or the mean with its range. */
enum how { LAST, MEAN, RANGE };

typedef struct column {
    const char *name;
    enum how how;
} column;

enum { STEP, SECONDS, TOKENS }; /* the columns that are more than copied */
static const column train_columns[] = {{"step", LAST},     {"seconds", LAST}, {"tokens", LAST},
                                       {"epoch", LAST},    {"loss", RANGE},   {"norm", RANGE},
                                       {"accuracy", MEAN}, {"lr", LAST},      {"peak_bytes", LAST}};
static const column eval_columns[] = {
    {"step", LAST}, {"eval_loss", RANGE}, {"eval_accuracy", MEAN}};

typedef struct table {
    const column *columns; /* [count] */
    size_t count, rows, room;
    double *cells; /* [rows][count], NaN where a line says nothing */
} table;

typedef struct reader {
    const char *folder;
    size_t number; /* of the line */
    table train, eval;
    double seconds, tokens;           /* of this process, at the line before */
    double past_seconds, past_tokens; /* of the processes before it */
    json_t *last, *last_eval, *best;
    double best_loss;
} reader;

/* ---- lines */

static double number_of(const json_t *line, const char *name)
{
    const json_t *value = json_object_get(line, name);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static kh_status add_row(reader *r, table *t, const json_t *line)
{
    KH_TRY(kh_grow(&t->cells, t->rows, &t->room, t->count * sizeof *t->cells, "the metrics"));
    double *row = t->cells + t->rows * t->count;
    for (size_t i = 0; i < t->count; i++) row[i] = number_of(line, t->columns[i].name);
    if (t->rows > 0 && !(row[STEP] >= row[STEP - (ptrdiff_t)t->count]))
        KH_FAIL(KH_ERR_FORMAT,
                "%s/metrics.jsonl: line %zu: step %.0f after step %.0f: these are "
                "lines of two runs",
                r->folder, r->number, row[STEP], row[STEP - (ptrdiff_t)t->count]);
    t->rows++;
    return KH_OK;
}

static void keep(json_t **place, json_t *line)
{
    json_decref(*place);
    *place = json_incref(line);
}

static kh_status add_step(reader *r, json_t *line)
{
    KH_TRY(add_row(r, &r->train, line));
    double *row = r->train.cells + (r->train.rows - 1) * r->train.count;
    double seconds = row[SECONDS], tokens = seconds * number_of(line, "tokens_per_second");
    if (seconds < r->seconds) {
        r->past_seconds += r->seconds;
        r->past_tokens += r->tokens;
    }
    if (isfinite(seconds)) r->seconds = seconds;
    if (isfinite(tokens)) r->tokens = tokens;
    row[SECONDS] = seconds + r->past_seconds;
    row[TOKENS] = tokens + r->past_tokens;
    keep(&r->last, line);
    return KH_OK;
}

static kh_status add_evaluation(reader *r, json_t *line)
{
    double loss = number_of(line, "eval_loss");
    KH_TRY(add_row(r, &r->eval, line));
    keep(&r->last_eval, line);
    if (!r->best || loss < r->best_loss) {
        keep(&r->best, line);
        r->best_loss = loss;
    }
    return KH_OK;
}

static kh_status add_line(reader *r, const char *text, size_t size)
{
    json_error_t error;
    json_t *line = json_loadb(text, size, 0, &error);
    kh_status status = KH_OK;
    if (!line && json_error_code(&error) == json_error_out_of_memory)
        KH_FAIL(KH_ERR_MEMORY, "no memory for the metrics of %s", r->folder);
    if (!line)
        KH_FAIL(KH_ERR_FORMAT, "%s/metrics.jsonl: line %zu: no JSON: %s", r->folder, r->number,
                error.text);
    int trains = json_object_get(line, "loss") != NULL;
    int evaluates = json_object_get(line, "eval_loss") != NULL;
    if (!json_is_object(line) || ((trains || evaluates) && !(number_of(line, "step") >= 0)))
        status = kh_fail(KH_ERR_FORMAT, "%s/metrics.jsonl: line %zu: \"step\" is no number",
                         r->folder, r->number);
    else if (trains)
        status = add_step(r, line);
    else if (evaluates)
        status = add_evaluation(r, line);
    json_decref(line);
    return status;
}

static kh_status read_metrics(reader *r)
{
    char path[4096], *text = NULL;
    size_t size = 0;
    snprintf(path, sizeof path, "%s/metrics.jsonl", r->folder);
    if (access(r->folder, F_OK) != 0)
        KH_FAIL(KH_ERR_NOT_FOUND, "%s: %s", r->folder, strerror(errno));
    if (access(path, F_OK) != 0)
        KH_FAIL(KH_ERR_NOT_FOUND, "%s: no run of keyhole train or tune: metrics.jsonl is missing",
                r->folder);
    KH_TRY(kh_file_read(&text, &size, path, most_bytes));
    kh_status status = KH_OK;
    for (size_t at = 0; at < size && status == KH_OK;) {
        const char *end = memchr(text + at, '\n', size - at);
        if (!end) break;
        r->number++;
        status = add_line(r, text + at, (size_t)(end - text) - at);
        at = (size_t)(end - text) + 1;
    }
    kh_free(text);
    if (status == KH_OK && r->train.rows + r->eval.rows == 0)
        status = kh_fail(KH_ERR_NOT_FOUND, "%s: nothing was logged yet", path);
    return status;
}

static kh_status read_config(json_t **out, const char *folder)
{
    char path[4096], *text = NULL;
    size_t size = 0;
    json_error_t error;
    snprintf(path, sizeof path, "%s/config.json", folder);
    KH_TRY(kh_file_read(&text, &size, path, (size_t)1 << 20));
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    kh_free(text);
    if (!*out) KH_FAIL(KH_ERR_FORMAT, "%s: line %d: no JSON: %s", path, error.line, error.text);
    if (json_is_object(*out)) return KH_OK;
    json_decref(*out);
    *out = NULL;
    KH_FAIL(KH_ERR_FORMAT, "%s: a JSON object of options is expected", path);
}

/* ---- columns */

typedef struct point {
    double value, low, high;
} point;

static point point_of(const table *t, size_t c, size_t from, size_t to)
{
    point p = {0, HUGE_VAL, -HUGE_VAL};
    size_t counted = 0;
    for (size_t i = from; i < to; i++) {
        double x = t->cells[i * t->count + c];
        if (!isfinite(x)) continue;
        p.value = t->columns[c].how == LAST ? x : p.value + x;
        p.low = x < p.low ? x : p.low;
        p.high = x > p.high ? x : p.high;
        counted++;
    }
    if (t->columns[c].how != LAST) p.value /= (double)counted;
    if (!counted) p.value = p.low = p.high = (double)NAN;
    return p;
}

/* Whole numbers as they are, others to seven digits: a page of a long run is half as large. */
static json_t *short_json(double value)
{
    char digits[32];
    if (value == floor(value) && fabs(value) < 1e15) return json_integer((json_int_t)value);
    snprintf(digits, sizeof digits, "%.7g", value);
    return wire_real(strtod(digits, NULL));
}

static int set_column(json_t *out, const table *t, size_t c, size_t each)
{
    const char *name = t->columns[c].name;
    char low_name[32], high_name[32];
    int ranged = each > 1 && t->columns[c].how == RANGE;
    json_t *values = json_array();
    json_t *low = ranged ? json_array() : NULL, *high = ranged ? json_array() : NULL;
    int failed = !values || (ranged && (!low || !high));
    for (size_t from = 0; from < t->rows && !failed; from += each) {
        point p = point_of(t, c, from, from + each < t->rows ? from + each : t->rows);
        failed = json_array_append_new(values, short_json(p.value));
        if (!ranged || failed) continue;
        failed = json_array_append_new(low, short_json(p.low)) ||
                 json_array_append_new(high, short_json(p.high));
    }
    snprintf(low_name, sizeof low_name, "%s_low", name);
    snprintf(high_name, sizeof high_name, "%s_high", name);
    failed |= json_object_set_new(out, name, values);
    if (ranged) {
        failed |= json_object_set_new(out, low_name, low);
        failed |= json_object_set_new(out, high_name, high);
    }
    return failed;
}

static json_t *table_json(const table *t)
{
    size_t each = t->rows > MOST_POINTS ? (t->rows + MOST_POINTS - 1) / MOST_POINTS : 1;
    json_t *out = json_pack("{s:I, s:I}", "lines", (json_int_t)t->rows, "each", (json_int_t)each);
    int failed = !out;
    for (size_t c = 0; c < t->count && !failed; c++) failed = set_column(out, t, c, each);
    if (!failed) return out;
    json_decref(out);
    return NULL;
}

/* ---- runs */

kh_status cli_train_report_add(json_t *runs, const char *folder)
{
    reader r = {.folder = folder,
                .train = {.columns = train_columns, .count = sizeof train_columns / sizeof(column)},
                .eval = {.columns = eval_columns, .count = sizeof eval_columns / sizeof(column)}};
    json_t *config = NULL;
    kh_status status = read_metrics(&r);
    if (status == KH_OK) status = read_config(&config, folder);
    if (status == KH_OK &&
        json_array_append_new(runs,
                              json_pack("{s:o, s:O, s:o, s:o, s:O*, s:O*, s:O*}", "folder",
                                        wire_text(folder, strlen(folder)), "config", config,
                                        "train", table_json(&r.train), "eval", table_json(&r.eval),
                                        "last", r.last, "last_eval", r.last_eval, "best", r.best)))
        status = kh_fail(KH_ERR_MEMORY, "no memory for the curves of %s", folder);
    json_decref(config);
    json_decref(r.last);
    json_decref(r.last_eval);
    json_decref(r.best);
    kh_free(r.train.cells);
    kh_free(r.eval.cells);
    return status;
}

kh_status cli_train_report_write(const char *path, json_t *runs, const cli_args *args)
{
    return cli_page_write(path, cli_page_training, cli_page_training_size, runs, args);
}

kh_status cli_train_report(const cli_args *args, kh_status status)
{
    char path[4096], sentence[1024];
    snprintf(sentence, sizeof sentence, "%s", status ? kh_last_error() : "");
    snprintf(path, sizeof path, "%s/report.html", args->output);
    json_t *runs = json_array();
    kh_status written = runs ? cli_train_report_add(runs, args->output)
                             : kh_fail(KH_ERR_MEMORY, "no memory for the page of curves");
    if (written == KH_OK)
        written = cli_train_report_write(args->report ? args->report : path, runs, args);
    json_decref(runs);
    return status ? kh_fail(status, "%s", sentence) : written;
}

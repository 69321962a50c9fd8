/* keyhole task: examples of a generated task, as text or as JSON lines, and what is known of the task
 * without training: statistics and shallow baselines.
 *
 * Examples are a function of the setting, the seed, the split and their number, so the verb only has to
 * name them; --first goes on where an earlier call ended. JSON lines have the keys that a trainer
 * needs: tokens; targets, one per token, where answers are ids; label, where an example has a class;
 * second, where it is two texts; text, the written form. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"

#include <stdio.h>
#include <string.h>

enum {
    SHOWN = 3,
    MEASURED = 10000,
    FITTED = 5 /* training examples of a baseline per tested one */
};
static const char *const splits[] = {"train", "valid", "test", NULL}; /* as kh_task_split */

/* ---- without a name: what there is ---- */

static kh_status print_kinds(const cli_args *args)
{
    json_t *list = args->json ? json_array() : NULL;
    for (size_t i = 0; i < kh_task_kind_count(); i++) {
        const kh_task_kind *kind = kh_task_kind_at(i);
        if (!args->json)
            cli_out("%s:%s\n    %s\n", kind->name, kind->setting, kind->about);
        else if (list)
            KH_TRY(cli_json_add(list, json_pack("{s:s, s:s, s:s}", "name", kind->name, "about",
                                                kind->about, "setting", kind->setting)));
    }
    return args->json ? cli_json_print(json_pack("{s:o}", "tasks", list)) : KH_OK;
}

/* ---- examples ---- */

static json_t *example_json(const kh_task *task, const kh_task_example *example)
{
    const kh_task_info *info = kh_task_get_info(task);
    char *text = NULL;
    size_t size = 0;
    json_t *one = json_pack("{s:o}", "tokens", wire_ids(example->tokens, example->n));
    int bad = !one;
    if (info->classes)
        bad = bad || json_object_set_new(one, "label", json_integer(example->label));
    else
        bad = bad || json_object_set_new(one, "targets", wire_ids(example->targets, example->n));
    if (info->pair)
        bad = bad || json_object_set_new(one, "second", json_integer((json_int_t)example->second));
    if (kh_task_text(task, example, &text, &size) != KH_OK) bad = 1;
    bad = bad || json_object_set_new(one, "text", wire_text(text, size));
    kh_free_text(text);
    if (bad) json_decref(one);
    return bad ? NULL : one;
}

static kh_status print_example(const kh_task *task, const kh_task_example *example, uint64_t index)
{
    char *text = NULL;
    size_t size = 0;
    KH_TRY(kh_task_text(task, example, &text, &size));
    cli_out("%llu: %zu tokens", (unsigned long long)index, example->n);
    if (example->label >= 0) cli_out(", label %d", example->label);
    cli_out("\n");
    cli_out_bytes(text, size);
    cli_out("\n");
    kh_free_text(text);
    int first = 1;
    for (size_t t = 0; t < example->n; t++) {
        char word[32];
        if (example->targets[t] < 0) continue;
        kh_task_spell(task, example->targets[t], word, sizeof word);
        cli_out("%s%zu: %s", first ? "answers by row: " : ", ", t, word);
        first = 0;
    }
    cli_out(first ? "\n" : "\n\n");
    return KH_OK;
}

static kh_status write_line(kh_outfile *file, json_t *one)
{
    char *line = one ? json_dumps(one, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    json_decref(one);
    if (!line) KH_FAIL(KH_ERR_MEMORY, "no memory for an example");
    kh_status status = KH_OK;
    if (file) {
        status = kh_outfile_write(file, line, strlen(line));
        if (status == KH_OK) status = kh_outfile_write(file, "\n", 1);
    } else {
        cli_out("%s\n", line);
    }
    kh_free(line);
    return status;
}

/* Gives the examples out one by one; `list` takes them for --json. */
static kh_status each(const kh_task *task, const cli_args *args, kh_outfile *file, json_t *list)
{
    kh_task_example example;
    KH_TRY(kh_task_example_open(&example, task));
    uint64_t first = (uint64_t)args->first, count = args->count ? (uint64_t)args->count : SHOWN;
    kh_status status = KH_OK;
    for (uint64_t i = 0; i < count && status == KH_OK && !cli_out_closed(); i++) {
        status = kh_task_generate(task, (uint64_t)args->seed, (kh_task_split)args->split, first + i,
                                  &example);
        if (status != KH_OK) break;
        if (args->json)
            status = cli_json_add(list, example_json(task, &example));
        else if (args->jsonl)
            status = write_line(file, example_json(task, &example));
        else
            status = print_example(task, &example, first + i);
        cli_progress(NULL, "examples", (size_t)i + 1, (size_t)count);
    }
    cli_progress_end();
    kh_task_example_close(&example);
    return status;
}

static json_t *task_json(const kh_task *task, const cli_args *args)
{
    const kh_task_info *info = kh_task_get_info(task);
    return json_pack("{s:s, s:s, s:I, s:i, s:i, s:i, s:I}", "setting", info->setting, "split",
                     splits[args->split], "seed", (json_int_t)args->seed, "vocabulary",
                     info->vocabulary, "classes", info->classes, "pad", info->pad, "longest",
                     (json_int_t)info->longest);
}

static kh_status print_examples(const kh_task *task, const cli_args *args)
{
    if (args->json) {
        json_t *list = json_array();
        if (!list) KH_FAIL(KH_ERR_MEMORY, "no memory for the examples");
        kh_status status = each(task, args, NULL, list);
        if (status == KH_OK)
            return cli_json_print(
                json_pack("{s:o, s:o}", "task", task_json(task, args), "examples", list));
        json_decref(list);
        return status;
    }
    if (!args->jsonl || strcmp(args->jsonl, "-") == 0) return each(task, args, NULL, NULL);
    kh_outfile *file = NULL;
    KH_TRY(kh_outfile_open(&file, args->jsonl));
    kh_status status = each(task, args, file, NULL);
    if (status == KH_OK) return kh_outfile_commit(file);
    kh_outfile_abandon(file);
    return status;
}

/* ---- statistics ---- */

static json_t *numbers_json(const kh_task_number *numbers, size_t count)
{
    json_t *object = json_object();
    for (size_t i = 0; i < count && object; i++)
        if (json_object_set_new(object, numbers[i].name, wire_real(numbers[i].value))) {
            json_decref(object);
            object = NULL;
        }
    return object;
}

static json_t *shares_json(const kh_task_stats *stats)
{
    json_t *list = json_array();
    for (int c = 0; c < stats->classes && list; c++)
        if (json_array_append_new(list, wire_real(stats->share[c]))) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

static void print_numbers(const kh_task *task, const cli_args *args, const kh_task_stats *stats)
{
    const kh_task_info *info = kh_task_get_info(task);
    cli_out("%s\n%d ids, ", info->setting, info->vocabulary);
    if (info->classes)
        cli_out("%d labels\n\n", info->classes);
    else
        cli_out("answers are ids\n\n");
    cli_table table = {0};
    cli_table_row(&table, "%zu examples of %s, seed %lld\t", stats->examples, splits[args->split],
                  (long long)args->seed);
    cli_table_row(&table, "tokens, shortest\t%zu", stats->shortest);
    cli_table_row(&table, "tokens, mean\t%.1f", stats->mean_length);
    cli_table_row(&table, "tokens, longest\t%zu", stats->longest);
    cli_table_row(&table, "answers in an example\t%.2f", stats->answers);
    cli_table_row(&table, "equal to an earlier one\t%zu", stats->duplicates);
    if (stats->acceptance < 1)
        cli_table_row(&table, "drafts that are allowed\t%.2f %%", 100 * stats->acceptance);
    for (size_t i = 0; i < stats->count; i++)
        cli_table_row(&table, "%s\t%.3f", stats->numbers[i].name, stats->numbers[i].value);
    for (int c = 0; c < stats->classes; c++)
        cli_table_row(&table, "label %d\t%.1f %%", c, 100 * stats->share[c]);
    cli_table_print(&table);
}

static kh_status print_stats(const kh_task *task, const cli_args *args)
{
    kh_task_stats stats;
    kh_task_number baselines[KH_TASK_MOST_NUMBERS];
    size_t count = 0, examples = args->count ? (size_t)args->count : MEASURED;
    uint64_t seed = (uint64_t)args->seed;
    KH_TRY(kh_task_measure(task, seed, (kh_task_split)args->split, examples, &stats));
    KH_TRY(kh_task_baselines(task, seed, FITTED * examples, examples, baselines, &count));
    if (args->json)
        return cli_json_print(json_pack(
            "{s:o, s:{s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}, s:o}", "task",
            task_json(task, args), "stats", "examples", (json_int_t)stats.examples, "duplicates",
            (json_int_t)stats.duplicates, "shortest", (json_int_t)stats.shortest, "longest",
            (json_int_t)stats.longest, "mean_length", wire_real(stats.mean_length), "answers",
            wire_real(stats.answers), "acceptance", wire_real(stats.acceptance), "numbers",
            numbers_json(stats.numbers, stats.count), "label_shares", shares_json(&stats),
            "baselines", numbers_json(baselines, count)));
    print_numbers(task, args, &stats);
    cli_table table = {0};
    cli_table_row(&table, "accuracy on %zu examples of test\t", examples);
    for (size_t i = 0; i < count; i++)
        cli_table_row(&table, "%s\t%.2f %%", baselines[i].name, 100 * baselines[i].value);
    cli_out("\n");
    return cli_table_print(&table);
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    if (count == 0) return print_kinds(args);
    if (args->json + (args->jsonl != NULL) + args->stats > 1 && !(args->json && args->stats))
        KH_FAIL(KH_ERR_ARGUMENT, "--jsonl: cannot be combined with --json or --stats");
    kh_task *task = NULL;
    KH_TRY(kh_task_open(&task, words[0]));
    kh_status status = args->stats ? print_stats(task, args) : print_examples(task, args);
    kh_task_close(task);
    return status;
}

static const kh_opt which[] = {
    CLI_INT(count, "--count", "N", "how many examples; 0 is 3, or 10000 for --stats", "0", 0,
            1 << 30, NULL),
    CLI_INT(first, "--first", "N", "the number of the first one", "0", 0, 1e15, NULL),
    CLI_CHOICE(split, "--split", "SPLIT", "which examples", "train", splits, NULL),
    CLI_INT(seed, "-s --seed", "N", "seed", "1", 0, 4294967295.0, NULL), CLI_END};
static const kh_opt output[] = {
    CLI_FLAG(stats, "--stats",
             "statistics of the examples, and the accuracy of predictors that do not solve the "
             "task, counted on five times as many of train and measured on test"),
    CLI_TEXT(jsonl, "--jsonl", "FILE",
             "writes the examples to a file, or standard output (-), one JSON object a line: "
             "tokens, targets or label, text",
             NULL),
    CLI_FLAG(json, "--json", "prints {task, examples}, or with --stats {task, stats, baselines}"),
    CLI_FLAG(quiet, "-q --quiet", "no progress on standard error"), CLI_END};
static const kh_opt_group groups[] = {{"Examples", which}, {"Output", output}, CLI_NO_GROUP};

const cli_verb cli_verb_task = {
    .group = "Train",
    .command = {.name = "task",
                .does = "examples of generated tasks with known answers",
                .words = "[NAME[:name=value,...]]",
                .most_words = 1,
                .about = "Prints examples of a task that is generated from a seed: nested list "
                         "operations, recall of key-value pairs, curves in pictures, windows of "
                         "files, copying, induction. Example "
                         "number i of a split is always the same, on every machine. Without a "
                         "name, lists the tasks and their parameters.",
                .example = "keyhole task mqar:L=64,pairs=4 --stats\n"
                           "keyhole task listops:min=50,max=256,depth=10,args=10 --count 1000 "
                           "--jsonl train.jsonl",
                .groups = groups},
    .run = run,
};

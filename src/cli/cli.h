/* cli/cli.h: what the verbs share. The program stands on the public headers and src/base alone. */
#ifndef KH_CLI_CLI_H
#define KH_CLI_CLI_H

#include "base/buf.h"
#include "base/opt.h"
#include "wire/json_value.h"

#include <jansson.h>
#include <keyhole/keyhole.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* ---- arguments ---- */

/* The values of all options of all verbs; a verb's tables say which of them it has. */
typedef struct cli_args {
    const char *verb; /* "run" */
    int argc;         /* the command line behind the verb */
    char *const *argv;
    /* model and computation */
    const char *model, *hf, *hf_file, *attn, *ff;
    int offline;
    kh_opt_texts attns, ffs, loras;
    int64_t context, threads, batch;
    int longer, k_type, v_type, precision, key_shadow;
    /* input */
    const char *prompt, *file, *system, *prompt_cache;
    const char *chat_template, *chat_template_file, *chat_template_kwargs;
    int raw, no_prompt_cache;
    /* answer */
    int64_t predict, keep, seed, top_k, repeat_last, beams;
    double length_penalty, temp, top_p, min_p, repeat_penalty;
    kh_opt_texts bias, stop;
    int ignore_eos, ctx_shift, sources;
    /* output */
    int json, quiet, verbose, stats;
    /* ppl */
    int64_t stride, chunks;
    int like, token_nll;
    const char *ids_file, *logits_file;
    /* embed, fill */
    int pooling, no_normalise, truncate, impossible;
    /* tokenize, show */
    int ids_only, decode, no_special, no_edges, metadata, tensors;
    const char *shard;
    /* documents: tokenize --shard, train, tune */
    int bos_edge, eos_edge, markers, last_answer;
    const char *separator;
    /* bench, calibrate */
    kh_opt_ints prompts, generate, depths, thread_list, lengths, keeps;
    int64_t repeat, tokens, heads, kv_heads, head_dim, chunk;
    int causal, no_causal, pass, scores, csv;
    kh_opt_ints hiddens, ff_keeps;
    int64_t width, layers, hidden;
    int act, gated, rule, recompute;
    int demo, dry_run;
    const char *only, *report, *predictions;
    /* pull */
    int list;
    int64_t tries;
    /* task */
    int64_t count, first;
    int split;
    const char *jsonl;
    /* convert */
    int type, pure, force, no_tokenizer, no_heads, only_lora;
    const char *output;
    /* tokenizer train */
    int kind;
    int64_t vocabulary, least;
    const char *pretoken;
    kh_opt_texts special;
    /* train, tune */
    const char *arch, *tokenizer, *task, *optimizer, *schedule, *train, *save, *out_type, *config;
    kh_opt_texts data, valid, groups;
    double valid_share, attn_dropout, rate, target;
    int64_t length, sequences, accumulate, steps, save_every, eval_every, eval_batches, log_every;
    int64_t lora_rank;
    double lora_alpha;
    const char *lora_targets, *distill, *teacher;
    int pack, order, grad, resume, no_update;
    /* serve */
    const char *host, *cors_origin, *slot_save_path, *alias, *labels;
    kh_opt_texts api_keys;
    int64_t port, parallel, timeout;
    int no_webui;
    /* lens, why, neurons, heads, edit */
    const char *token_a, *token_b, *part, *edit_file, *prompt_lines;
    int find, ends, of_heads;
    int64_t random_tokens, key_position;
    kh_opt_texts edits, taps, tracked;
    int64_t position, layer, most, bottom;
    int template, alone, by;
    /* search */
    const char *text;
    int64_t clusters, rounds, cluster_seed;
    /* patch */
    const char *clean, *corrupted, *receiver;
    kh_opt_texts kinds;
    int64_t first_layer;
    int input, attribution, check;
    /* labels */
    const char *export_file, *import_file;
    /* steering */
    kh_opt_texts vectors;
    kh_opt_ints vector_layers;
    const char *pairs, *means, *from, *minus;
    int method;
    double strength;
    /* diff */
    int no_own;
    /* trace */
    kh_opt_texts points;
    int64_t limit;
} cli_args;

typedef struct cli_verb {
    const char *group; /* "Use" */
    kh_opt_command command;
    kh_status (*run)(cli_args *args, const char **words, size_t count);
} cli_verb;

extern const cli_verb cli_verb_run, cli_verb_chat, cli_verb_ask, cli_verb_ppl, cli_verb_bench,
    cli_verb_recall, cli_verb_attention, cli_verb_decode, cli_verb_select, cli_verb_ff,
    cli_verb_stack, cli_verb_kernels, cli_verb_report, cli_verb_calibrate, cli_verb_show,
    cli_verb_tokenize, cli_verb_convert, cli_verb_verify, cli_verb_pull, cli_verb_embed,
    cli_verb_fill, cli_verb_qa, cli_verb_eval, cli_verb_task, cli_verb_tokenizer, cli_verb_train,
    cli_verb_tune, cli_verb_train_report, cli_verb_bench_train, cli_verb_serve, cli_verb_lens,
    cli_verb_why, cli_verb_neurons, cli_verb_heads, cli_verb_search, cli_verb_edit, cli_verb_patch,
    cli_verb_steer, cli_verb_diff, cli_verb_trace, cli_verb_labels;

/* All verbs in the order of the help; NULL behind the last. */
extern const cli_verb *const cli_verbs[];

/* Rows of option tables. */
#define CLI_AT(field) offsetof(cli_args, field)
#define CLI_FLAG(field, names, help)                                                               \
    {                                                                                              \
        KH_OPT_FLAG, names, NULL, help, CLI_AT(field), NULL, 0, 0, NULL, NULL                      \
    }
#define CLI_INT(field, names, word, help, initial, least, most, environment)                       \
    {                                                                                              \
        KH_OPT_INT, names, word, help, CLI_AT(field), initial, least, most, NULL, environment      \
    }
#define CLI_REAL(field, names, word, help, initial, least, most)                                   \
    {                                                                                              \
        KH_OPT_REAL, names, word, help, CLI_AT(field), initial, least, most, NULL, NULL            \
    }
#define CLI_TEXT(field, names, word, help, environment)                                            \
    {                                                                                              \
        KH_OPT_TEXT, names, word, help, CLI_AT(field), NULL, 0, 0, NULL, environment               \
    }
#define CLI_TEXTS(field, names, word, help)                                                        \
    {                                                                                              \
        KH_OPT_TEXTS, names, word, help, CLI_AT(field), NULL, 0, 0, NULL, NULL                     \
    }
#define CLI_INTS(field, names, help, least, most)                                                  \
    {                                                                                              \
        KH_OPT_INTS, names, "N,...", help, CLI_AT(field), NULL, least, most, NULL, NULL            \
    }
#define CLI_CHOICE(field, names, word, help, initial, list, environment)                           \
    {                                                                                              \
        KH_OPT_CHOICE, names, word, help, CLI_AT(field), initial, 0, 0, list, environment          \
    }
#define CLI_IGNORED(names, word, list)                                                             \
    {                                                                                              \
        KH_OPT_IGNORED, names, word, "accepted, without effect here", 0, NULL, 0, 0, list, NULL    \
    }
#define CLI_END                                                                                    \
    {                                                                                              \
        KH_OPT_FLAG, NULL, NULL, NULL, 0, NULL, 0, 0, NULL, NULL                                   \
    }
#define CLI_NO_GROUP                                                                               \
    {                                                                                              \
        NULL, NULL                                                                                 \
    }
enum { CLI_MOST_CONTEXT = 1 << 24 };

/* Tables that several verbs share (options.c). */
extern const kh_opt cli_options_model[], cli_options_context[], cli_options_compute[],
    cli_options_attn[], cli_options_encoder[], cli_options_attns[], cli_options_ff[],
    cli_options_ffs[], cli_options_prompt[], cli_options_template[], cli_options_answer[],
    cli_options_sampling[], cli_options_output[], cli_options_output_answer[],
    cli_options_output_rows[], cli_options_documents[], cli_options_known[], cli_options_steering[];

/* Takes the model out of the positional words unless -m or -hf named it. */
void cli_take_model(cli_args *args, const char ***words, size_t *count);
/* Session options without `attn` for the verbs that take several settings. */
kh_session_options cli_session_options(const cli_args *args);
/* The same of an encoder. */
kh_encoder_options cli_encoder_options(const cli_args *args);
/* What the documents of training data are. */
kh_document_options cli_documents(const cli_args *args);
/* Sampler options; *bias is theirs and the caller frees it with kh_free. Draws the seed if none was
 * given. */
kh_status cli_sampler(const cli_args *args, const kh_model *model, kh_sampler_options *out,
                      kh_logit_bias **bias);

/* ---- model, text, session (common.c) ---- */

/* The numbers of a list option, or the usual ones where none were given; free with kh_free. */
kh_status cli_sizes(size_t **out, size_t *count, const kh_opt_ints *given,
                    const int64_t *usual /* [usual_count] */, size_t usual_count);

/* The settings of --attn, then one for each -k; the usual ones where none was given. */
typedef struct cli_settings {
    const char **items; /* [count] */
    size_t count;
    char *names; /* of those that -k stands for */
} cli_settings;
kh_status cli_settings_open(cli_settings *out, const cli_args *args,
                            const char *const *usual /* [usual_count] */, size_t usual_count);
void cli_settings_close(cli_settings *settings);
int cli_settings_width(const cli_settings *settings); /* of their column */

/* Failures name what to type. */
kh_status cli_model_open(kh_model **out, const cli_args *args, int vocabulary);
/* The adapters that --lora names (loras.c); close the list in any case. */
typedef struct cli_loras {
    kh_convert_lora *items; /* [count]; their paths are the list's */
    size_t count;
} cli_loras;
kh_status cli_loras_open(cli_loras *out, const cli_args *args);
void cli_loras_close(cli_loras *loras);
/* Adds them to a model that was opened; cli_model_open does. */
kh_status cli_loras_add(kh_model *model, const cli_args *args);
/* Opens a session and tells it to the handler of Ctrl-C; says on stderr what "auto" means. */
kh_status cli_session_open(kh_session **out, const kh_model *model, const cli_args *args,
                           const char *attn);
/* Takes NULL. */
void cli_session_close(kh_session *session);
/* The text of -f, then of `words`' prompt or -p, joined by an empty line; standard input where
 * neither is given and it is no terminal. */
kh_status cli_read_text(kh_buf *out, const cli_args *args, const char *prompt);
/* A whole text file ("-": standard input), appended. */
kh_status cli_read_file(kh_buf *out, const char *path);
/* The ids of a text, or of --ids. Free with kh_free_ids. */
kh_status cli_text_ids(const kh_model *model, const cli_args *args, const char *path, int32_t **ids,
                       size_t *count);
/* Settings of --attn, or `fallback` where none was given. */
kh_opt_texts cli_attns(const cli_args *args, const char *const *fallback, size_t count);
/* Says on stderr what "auto" means for this file, if one of the settings is "auto". */
void cli_explain_auto(const kh_model *model, const cli_args *args, const char *attn);
/* The command line as a shell takes it: keyhole bench report 'a file'. Appended. */
kh_status cli_command(kh_buf *out, const cli_args *args);
double cli_seconds(void); /* a clock that only runs forward */

/* ---- labels (verb_labels.c) ---- */

/* --labels, or ${XDG_DATA_HOME:-~/.local/share}/keyhole/labels.sqlite; free with kh_free. KH_ERR_NOT_FOUND where there is
 * no home. */
kh_status cli_labels_path(char **out, const cli_args *args);

/* ---- models from a hub (cli_hub.c) ---- */

/* kh_hub_pull with progress, notes and Ctrl-C; `flags` of <keyhole/hub.h>. */
kh_status cli_hub_pull(kh_hub_model **out, const cli_args *args, const char *name, unsigned flags);
/* What -hf and -hff name. */
kh_status cli_hub_model(kh_hub_model **out, const cli_args *args);

/* ---- conversations (chat_prompt.c): run, chat and ask ---- */

/* How this model's conversations become text, for people: the format of --chat-template, that of the
 * model's own template, "" for none. */
const char *cli_chat_format(const cli_args *args, const kh_model *model);
/* Ids of a conversation by the template or format that the options name; kh_free_ids. */
kh_status cli_chat_ids(const cli_args *args, const kh_model *model, const kh_chat_message *messages,
                       size_t count, int32_t **ids, size_t *n);

/* ---- one answer (answer.c): run, chat and ask ---- */

typedef struct cli_answer {
    const cli_args *args;
    const kh_model *model;
    kh_session *session;
    kh_sampler_options sampler;
    kh_logit_bias *bias;
    int silent;   /* 1: nothing is streamed (--json) */
    kh_buf text;  /* all of the answer */
    int32_t *ids; /* [id_count] generated */
    size_t id_count, id_room;
    size_t prompt_tokens, cached_tokens;
    double read_seconds;
    kh_generate_result result;
    void (*chosen)(void *context, size_t index); /* NULL, or called for every token */
    void *chosen_context;
} cli_answer;

kh_status cli_answer_open(cli_answer *answer, const cli_args *args, const kh_model *model,
                          kh_session *session);
void cli_answer_close(cli_answer *answer);
/* Reads what of ids the session does not hold already; at least the last one. */
kh_status cli_answer_read(cli_answer *answer, const int32_t *ids, size_t count);
/* For a model with an encoder: gives it ids as its source and reads the decoder's start. */
kh_status cli_answer_source(cli_answer *answer, const int32_t *ids, size_t count);
/* Generates and streams, or searches with --beams. An interrupted answer is KH_ERR_STOPPED. */
kh_status cli_answer_generate(cli_answer *answer);
/* One line on stderr, unless --quiet. */
void cli_answer_summary(const cli_answer *answer);
/* Why the answer ended, on stderr, where the reader would wonder. */
void cli_answer_explain(const cli_answer *answer);
json_t *cli_answer_json(const cli_answer *answer);
/* Length of the longest common prefix. */
size_t cli_common_prefix(const int32_t *a, size_t a_count, const int32_t *b, size_t b_count);
/* Loads `path` where it exists and fits the session; *loaded receives the number of tokens that are
 * shared with ids. Of a file for another model or setting: KH_ERR_FORMAT. */
kh_status cli_cache_load(kh_session *session, const char *path, const int32_t *ids, size_t count,
                         size_t *loaded);

/* ---- passages that an answer read (sources.c) ---- */

typedef struct cli_source {
    size_t start, end; /* bytes of the document */
    double weight;     /* share of what the answer read from the document */
    int layer, head;   /* that read most from it */
    float head_weight; /* its largest weight on one token of the passage */
} cli_source;

typedef struct cli_sources cli_sources;
/* Finds the document's tokens among ids; KH_ERR_NOT_FOUND where they cannot be told apart. */
kh_status cli_sources_open(cli_sources **out, const kh_model *model, const int32_t *ids,
                           size_t count, const char *document, size_t size);
void cli_sources_close(cli_sources *sources);
/* Observes the session; pass NULL to cli_sources_detach it before closing. */
void cli_sources_attach(cli_sources *sources, kh_session *session);
/* The best `most` passages, best first. */
size_t cli_sources_best(const cli_sources *sources, cli_source *out, size_t most);

/* ---- output (output.c) ---- */

extern int cli_quiet;
/* Standard output. A closed pipe makes them do nothing; cli_out_closed then says 1. */
void cli_out(const char *format, ...) __attribute__((format(printf, 1, 2)));
void cli_out_bytes(const char *bytes, size_t n);
int cli_out_closed(void);
/* Writes what is buffered. KH_ERR_IO unless it arrived or nobody reads any more. */
kh_status cli_out_flush(void);
/* Ends a row of a table that is shown as it grows: writes it, and KH_ERR_STOPPED when nobody reads. */
kh_status cli_row_done(void);
/* Standard error: a message, "keyhole: note: ..." (not when quiet), "keyhole: ..." */
void cli_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void cli_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void cli_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
size_t cli_width(void); /* columns of the terminal, 80 where there is none */
/* "12.3 MB" into a buffer of the caller. */
const char *cli_bytes(char *out, size_t size, uint64_t bytes);

/* Progress of long work on stderr, when that is a terminal and --quiet was not given. */
void cli_progress(void *context, const char *stage, size_t done, size_t all);
void cli_progress_bytes(const char *stage, uint64_t done, uint64_t all);
void cli_progress_end(void);
/* A line that the next one replaces; cli_progress_end takes it away. */
void cli_line(const char *text);

/* ---- signals (output.c) ---- */

void cli_signals(void);
/* The session that Ctrl-C stops; NULL: Ctrl-C ends the program. */
void cli_signals_session(kh_session *session);
/* The same for a trainer that evaluates; Ctrl-C leaves its steps alone. */
void cli_signals_trainer(kh_trainer *trainer);
/* The inspector that Ctrl-C stops, as a session. */
void cli_signals_inspector(kh_inspector *inspector);
int cli_interrupted(void);
/* 1: without a session too the first Ctrl-C only sets cli_interrupted(). */
void cli_signals_await(int on);
void cli_signals_clear(void);

/* ---- JSON (cli_json.c) ---- */

/* Prints and frees; takes NULL as "no memory". */
kh_status cli_json_print(json_t *value);
/* Appends one row, which it takes, to a list. */
kh_status cli_json_add(json_t *list, json_t *one);

/* ---- tables (cli_table.c) ---- */

typedef struct cli_table {
    size_t columns, rows;
    kh_buf cells;     /* the texts, each ended by a zero byte */
    int ends_in_text; /* 1: the last column stands to the left */
    int failed;
} cli_table;
/* One row; `format` makes cells separated by tabs. The first row is the heading. */
void cli_table_row(cli_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints, the first column to the left and the others to the right, and frees. */
kh_status cli_table_print(cli_table *table);

/* ---- completion (completion.c) ---- */

kh_status cli_complete(kh_buf *out, const char *shell);

#endif

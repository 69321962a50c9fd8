/* keyhole chat: a conversation in the format of the model.
 *
 * The whole conversation is rendered anew for every turn and compared with what the session has
 * read: what is equal is kept, the rest is read. So an edited system message, a cleared conversation
 * and a stopped answer need no special case. When the conversation outgrows the context, the turn is
 * refused and taken back; with --ctx-shift the oldest exchange is dropped until it fits.
 *
 * Line editing is the terminal's. Without a terminal every line of standard input is a turn, and
 * nothing but answers is printed, so that a conversation can be scripted. */
#include "cli/cli.h"
#include "cli/steering.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct talk {
    cli_args *args;
    const kh_model *model;
    kh_session *session;
    cli_answer answer;
    kh_chat_message *messages; /* [count] texts are ours */
    size_t count, room;
    int terminal; /* someone types */
} talk;

static void forget(talk *t, size_t count)
{
    while (t->count > count) {
        char *text;
        memcpy(&text, &t->messages[--t->count].text, sizeof text);
        kh_free(text);
    }
}

static kh_status add(talk *t, const char *role, const char *text, size_t size)
{
    KH_TRY(kh_grow(&t->messages, t->count, &t->room, sizeof *t->messages, "the conversation"));
    char *copy = kh_strndup(text, size);
    if (!copy) KH_FAIL(KH_ERR_MEMORY, "no memory for the conversation");
    t->messages[t->count++] = (kh_chat_message){role, copy};
    return KH_OK;
}

/* The first message of the conversation is the system's, if there is one. */
static size_t first_turn(const talk *t)
{
    return t->count && strcmp(t->messages[0].role, "system") == 0;
}

static kh_status start(talk *t, const char *system)
{
    forget(t, 0);
    return system && *system ? add(t, "system", system, strlen(system)) : KH_OK;
}

/* Drops the oldest question and its answer. */
static int drop_oldest(talk *t)
{
    size_t first = first_turn(t);
    if (t->count < first + 3) return 0;
    kh_chat_message question = t->messages[first], answer = t->messages[first + 1];
    memmove(t->messages + first, t->messages + first + 2,
            (t->count - first - 2) * sizeof *t->messages);
    t->messages[t->count - 2] = question;
    t->messages[t->count - 1] = answer;
    forget(t, t->count - 2);
    return 1;
}

static kh_status read_conversation(talk *t)
{
    for (;;) {
        int32_t *ids = NULL;
        size_t count = 0;
        kh_status status = cli_chat_ids(t->args, t->model, t->messages, t->count, &ids, &count);
        if (status == KH_OK) status = cli_answer_read(&t->answer, ids, count);
        kh_free_ids(ids);
        if (status != KH_ERR_CONTEXT || !t->args->ctx_shift || !drop_oldest(t)) return status;
        cli_note("the oldest question and its answer were dropped: the context was full");
    }
}

static kh_status turn(talk *t, const char *text, size_t size)
{
    size_t before = t->count;
    KH_TRY(add(t, "user", text, size));
    t->answer.text.size = 0;
    t->answer.id_count = 0;
    t->answer.read_seconds = 0;
    cli_signals_clear();
    cli_signals_session(t->session);
    kh_status status = read_conversation(t);
    if (status == KH_OK) status = cli_answer_generate(&t->answer);
    cli_signals_session(NULL);
    cli_progress_end();
    if (cli_out_closed()) return KH_ERR_STOPPED;
    if (status == KH_ERR_CONTEXT) {
        forget(t, before);
        cli_error("%s; /clear begins a new conversation", kh_last_error());
        return KH_OK;
    }
    if (status == KH_ERR_STOPPED && !t->terminal) return status;
    if (status != KH_OK && status != KH_ERR_STOPPED) return status;
    if (t->answer.text.size == 0 && status == KH_ERR_STOPPED)
        forget(t, before);
    else
        KH_TRY(add(t, "assistant", t->answer.text.size ? t->answer.text.data : "",
                   t->answer.text.size));
    if (status == KH_ERR_STOPPED) cli_say("(stopped; Ctrl-C once more leaves)");
    cli_answer_explain(&t->answer);
    cli_signals_clear();
    return KH_OK;
}

static void help(void)
{
    cli_say("/help            this list\n"
            "/clear           begins a new conversation\n"
            "/system TEXT     sets the system message and begins a new conversation\n"
            "/stats           speed, memory and seed of the last answer\n"
            "/quit            leaves (so does the end of the input)\n"
            "A backslash at the end of a line continues the message on the next one.");
}

/* 1 when the conversation ends. */
static int command(talk *t, const char *line, kh_status *status)
{
    if (strcmp(line, "/quit") == 0 || strcmp(line, "/exit") == 0 || strcmp(line, "/bye") == 0)
        return 1;
    if (strcmp(line, "/help") == 0 || strcmp(line, "/?") == 0) {
        help();
    } else if (strcmp(line, "/clear") == 0) {
        forget(t, first_turn(t));
    } else if (strncmp(line, "/system", 7) == 0 && (line[7] == ' ' || line[7] == 0)) {
        *status = start(t, line + 7 + strspn(line + 7, " "));
    } else if (strcmp(line, "/stats") == 0) {
        int quiet = cli_quiet;
        cli_quiet = 0;
        cli_answer_summary(&t->answer);
        cli_say("%zu of %zu tokens of the context are in use", kh_session_length(t->session),
                kh_session_context(t->session));
        cli_quiet = quiet;
    } else {
        cli_error("%s: no such command; /help lists them", line);
    }
    return 0;
}

/* One message, with its continuation lines. 0 at the end of the input. */
static int read_message(talk *t, kh_buf *message, kh_status *status)
{
    char *line = NULL;
    size_t room = 0;
    kh_buf_clear(message);
    for (int more = 0;; more = 1) {
        if (t->terminal) {
            cli_out(more ? ". " : "> ");
            *status = cli_out_flush();
        }
        ssize_t n = *status == KH_OK ? getline(&line, &room, stdin) : -1;
        if (n < 0) {
            /* `line` comes from the C library, which also takes it back. */
            (free)(line);
            return more && message->size;
        }
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) n--;
        int continues = n > 0 && line[n - 1] == '\\';
        *status = kh_buf_add(message, line, (size_t)(continues ? n - 1 : n));
        if (*status == KH_OK && continues) *status = kh_buf_text(message, "\n");
        if (!continues || *status != KH_OK) break;
    }
    (free)(line);
    return 1;
}

static kh_status loop(talk *t)
{
    kh_buf message = {0};
    kh_status status = KH_OK;
    if (t->terminal && !cli_quiet) cli_say("/help lists the commands, Ctrl-D leaves");
    while (status == KH_OK && read_message(t, &message, &status)) {
        if (status != KH_OK || message.size == 0) continue;
        if (memchr(message.data, 0, message.size))
            status = kh_fail(KH_ERR_ARGUMENT, "a text is expected, found a zero byte");
        else if (message.data[0] != '/')
            status = turn(t, message.data, message.size);
        else if (command(t, message.data, &status))
            break;
    }
    if (t->terminal && status == KH_OK) cli_out("\n");
    kh_buf_free(&message);
    return status;
}

static kh_status check_format(const kh_model *model, const cli_args *args)
{
    if (*cli_chat_format(args, model)) return KH_OK;
    KH_FAIL(KH_ERR_UNSUPPORTED,
            "%s: the file has no chat template; name a chat format with --chat-template (%s), or "
            "complete plain text with keyhole run --raw",
            args->model, kh_chat_formats());
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    cli_take_model(args, &words, &count);
    if (count) KH_FAIL(KH_ERR_ARGUMENT, "'%s': chat takes a model and nothing else", words[0]);
    kh_model *model = NULL;
    talk t = {.args = args, .terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)};
    kh_steering *steering = NULL;
    kh_status status = cli_model_open(&model, args, 0);
    if (status == KH_OK) status = check_format(model, args);
    if (status == KH_OK) status = cli_session_open(&t.session, model, args, args->attn);
    if (status == KH_OK) status = cli_steering_attach(&steering, t.session, model, args);
    cli_signals_session(NULL);
    t.model = model;
    if (status == KH_OK) status = cli_answer_open(&t.answer, args, model, t.session);
    if (status == KH_OK) status = start(&t, args->system);
    if (status == KH_OK) status = loop(&t);
    if (status == KH_OK && !t.terminal && t.answer.prompt_tokens) cli_answer_summary(&t.answer);
    forget(&t, 0);
    kh_free(t.messages);
    cli_answer_close(&t.answer);
    cli_session_close(t.session);
    kh_steering_close(steering);
    kh_model_close(model);
    return status;
}

static const kh_opt output[] = {
    CLI_FLAG(quiet, "-q --quiet", "no notes or progress on standard error"),
    CLI_FLAG(verbose, "-v --verbose", "says more about the model, the setting and the memory"),
    CLI_END};

static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Chat format", cli_options_template},
                                      {"Answer", cli_options_answer},
                                      {"Attention", cli_options_attn},
                                      {"Steering", cli_options_steering},
                                      {"Context", cli_options_context},
                                      {"Computation", cli_options_compute},
                                      {"Sampling", cli_options_sampling},
                                      {"Output", output},
                                      {"Known from llama.cpp", cli_options_known},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_chat = {
    .group = "Use",
    .command =
        {.name = "chat",
         .does = "a conversation",
         .words = "[MODEL]",
         .most_words = 1,
         .about = "Talks with a model by the chat template of its file. /help lists the commands; "
                  "a backslash at the end of a line continues the message on the next one. "
                  "Ctrl-C stops an answer, and leaves when none is running.\n\nWithout a "
                  "terminal every line of standard input is a turn.",
         .example = "keyhole chat -m model.gguf -sys \"You answer in one sentence.\"",
         .groups = groups},
    .run = run,
};

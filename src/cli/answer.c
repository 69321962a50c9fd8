/* One answer: read what is new of a prompt, generate, stream, account.
 *
 * run, chat and ask differ in where the ids come from; what happens to them is the same. The session
 * holds what it has read; a prompt is compared with that, the session is rewound to the longest
 * common prefix, and only the rest is read. That is the whole of the conversation memory of chat, of
 * --prompt-cache, and of ask's cached document. At least one token is always read, because logits
 * belong to the last read token and a rewound session has none.
 *
 * The text is kept beside being streamed: chat puts it into the conversation, --json prints it. The
 * buffers are sized before the first token, so that decoding allocates nothing here either, as long
 * as an answer stays within them. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdio.h>
#include <string.h>

size_t cli_common_prefix(const int32_t *a, size_t a_count, const int32_t *b, size_t b_count)
{
    size_t n = 0;
    while (n < a_count && n < b_count && a[n] == b[n]) n++;
    return n;
}

kh_status cli_answer_open(cli_answer *answer, const cli_args *args, const kh_model *model,
                          kh_session *session)
{
    *answer = (cli_answer){.args = args, .model = model, .session = session, .silent = args->json};
    KH_TRY(cli_sampler(args, model, &answer->sampler, &answer->bias));
    size_t room = kh_session_context(session);
    if (args->predict >= 0 && (size_t)args->predict < room) room = (size_t)args->predict;
    if (room > 65536) room = 65536;
    answer->id_room = room ? room : 1;
    KH_TRY(kh_new(&answer->ids, answer->id_room, sizeof *answer->ids, "the answer"));
    return kh_buf_reserve(&answer->text, answer->id_room * 8);
}

void cli_answer_close(cli_answer *answer)
{
    kh_free(answer->bias);
    kh_free(answer->ids);
    kh_buf_free(&answer->text);
    *answer = (cli_answer){0};
}

static void read_progress(void *context, size_t done, size_t all)
{
    kh_session *session = context;
    if (cli_interrupted()) kh_session_stop(session);
    cli_progress(NULL, "reading", done, all);
}

kh_status cli_answer_read(cli_answer *answer, const int32_t *ids, size_t count)
{
    kh_session *session = answer->session;
    size_t context = kh_session_context(session);
    int trained = kh_model_get_info(answer->model)->context;
    if (count == 0) KH_FAIL(KH_ERR_ARGUMENT, "the prompt has no tokens: nothing can follow it");
    if (count > context)
        KH_FAIL(KH_ERR_CONTEXT,
                "the prompt has %zu tokens and the context holds %zu (the model was trained for "
                "%d); -c %zu%s would allow it",
                count, context, trained, count + 256,
                count + 256 > (size_t)trained ? " --longer" : "");
    size_t kept = cli_common_prefix(kh_session_tokens(session), kh_session_length(session), ids,
                                    count);
    if (kept == count) kept--;
    if (kept < kh_session_length(session)) KH_TRY(kh_session_rewind(session, kept));
    if (cli_interrupted()) KH_FAIL(KH_ERR_STOPPED, "stopped");
    kh_read_options options = {.progress = read_progress, .progress_context = session};
    double start = cli_seconds();
    kh_status status = kh_session_read(session, ids + kept, count - kept, &options);
    answer->read_seconds += cli_seconds() - start;
    cli_progress_end();
    answer->prompt_tokens = count;
    answer->cached_tokens = kept;
    return status;
}

kh_status cli_answer_source(cli_answer *answer, const int32_t *ids, size_t count)
{
    int32_t first = kh_model_start(answer->model);
    double start = cli_seconds();
    KH_TRY(kh_session_source(answer->session, ids, count));
    KH_TRY(kh_session_read(answer->session, &first, 1, NULL));
    answer->read_seconds += cli_seconds() - start;
    answer->prompt_tokens = count;
    return KH_OK;
}

static kh_status on_token(void *context, const char *text, size_t size, const kh_choice *chosen,
                          const kh_choice *alternatives, size_t count)
{
    (void)alternatives;
    (void)count;
    cli_answer *answer = context;
    if (chosen) {
        if (answer->id_count == answer->id_room) {
            int32_t *grown = kh_realloc(answer->ids, answer->id_room * 2 * sizeof *answer->ids);
            if (!grown) KH_FAIL(KH_ERR_MEMORY, "no memory for the answer");
            answer->ids = grown;
            answer->id_room *= 2;
        }
        if (answer->chosen) answer->chosen(answer->chosen_context, answer->id_count);
        answer->ids[answer->id_count++] = chosen->id;
    }
    KH_TRY(kh_buf_add(&answer->text, text, size));
    if (!answer->silent && size) {
        cli_out_bytes(text, size);
        KH_TRY(cli_out_flush());
    }
    if (cli_interrupted() || cli_out_closed()) KH_FAIL(KH_ERR_STOPPED, "stopped");
    return KH_OK;
}

static kh_status end_line(cli_answer *answer, kh_status status)
{
    if (!answer->silent && answer->text.size && answer->text.data[answer->text.size - 1] != '\n')
        cli_out_bytes("\n", 1);
    kh_status written = cli_out_flush();
    return status == KH_OK ? written : status;
}

/* The whole answer at once: no beam is the answer before all are done. */
static kh_status generate_beams(cli_answer *answer)
{
    const cli_args *args = answer->args;
    kh_beam_options options = {.beams = (size_t)args->beams,
                               .max_tokens = args->predict > 0 ? (size_t)args->predict : 0,
                               .length_penalty = (float)args->length_penalty};
    double start = cli_seconds();
    char *text = NULL;
    int32_t *ids = NULL;
    size_t size = 0, count = 0;
    KH_TRY(kh_generate_beam(answer->session, &options, &ids, &count, NULL));
    kh_free(answer->ids);
    answer->ids = ids;
    answer->id_count = answer->id_room = count;
    answer->result = (kh_generate_result){count, cli_seconds() - start, KH_FINISH_LENGTH};
    if (kh_model_ends(answer->model, ids[count - 1])) answer->result.finish = KH_FINISH_END;
    KH_TRY(kh_model_detokenize(answer->model, ids, count, 0, &text, &size));
    kh_status status = kh_buf_add(&answer->text, text, size);
    if (status == KH_OK && !answer->silent) cli_out_bytes(text, size);
    kh_free_text(text);
    return end_line(answer, status);
}

kh_status cli_answer_generate(cli_answer *answer)
{
    const cli_args *args = answer->args;
    answer->result = (kh_generate_result){.finish = KH_FINISH_LENGTH};
    if (args->predict == 0) return KH_OK;
    if (args->beams > 0) return generate_beams(answer);
    kh_generate_options options = {.sampler = answer->sampler,
                                   .max_tokens = args->predict > 0 ? (size_t)args->predict : 0,
                                   .stop = (const char *const *)args->stop.items,
                                   .stop_count = args->stop.count,
                                   .ignore_end = args->ignore_eos,
                                   .context_shift = args->ctx_shift,
                                   .keep = (size_t)args->keep +
                                           (kh_model_get_info(answer->model)->add_bos ? 1 : 0),
                                   .token = on_token,
                                   .context = answer};
    double start = cli_seconds();
    kh_status status = kh_generate(answer->session, &options, &answer->result);
    if (status == KH_ERR_STOPPED) { /* the library fills the result only of a call that returned */
        answer->result = (kh_generate_result){answer->id_count, cli_seconds() - start,
                                              KH_FINISH_STOPPED};
    }
    if (status == KH_OK && answer->result.finish == KH_FINISH_STOPPED)
        status = kh_fail(KH_ERR_STOPPED, "stopped");
    return end_line(answer, status);
}

void cli_answer_explain(const cli_answer *answer)
{
    if (answer->result.finish == KH_FINISH_CONTEXT)
        cli_error("stopped: the context of %zu tokens is full; --ctx-shift goes on, -c N makes it "
                  "larger",
                  kh_session_context(answer->session));
}

static double rate(size_t tokens, double seconds)
{
    return seconds > 0 ? (double)tokens / seconds : 0;
}

void cli_answer_summary(const cli_answer *answer)
{
    if (cli_quiet) return;
    char cached[48] = "", peak[32];
    size_t read = answer->prompt_tokens - answer->cached_tokens;
    if (answer->cached_tokens)
        snprintf(cached, sizeof cached, " (%zu more were known)", answer->cached_tokens);
    cli_say(
        "read %zu tokens%s in %.2f s, %.1f/s; wrote %zu in %.2f s, %.1f/s; seed %llu; peak "
        "memory %s",
        read, cached, answer->read_seconds, rate(read, answer->read_seconds), answer->result.tokens,
        answer->result.seconds, rate(answer->result.tokens, answer->result.seconds),
        (unsigned long long)answer->sampler.seed, cli_bytes(peak, sizeof peak, kh_peak_memory()));
    kh_session_report report;
    kh_session_get_report(answer->session, &report);
    if (answer->args->stats)
        cli_say("kept mass %.5f; %.1f keys kept of %.1f for a query row", report.kept_mass,
                report.keys_kept / fmax(report.rows, 1), report.keys_seen / fmax(report.rows, 1));
    if (answer->args->verbose) {
        char file[32], cache[32], compute[32];
        cli_say("memory: file %s, cache %s, compute %s", cli_bytes(file, sizeof file, report.file),
                cli_bytes(cache, sizeof cache, report.cache_peak),
                cli_bytes(compute, sizeof compute, report.compute));
    }
}

static const char *finish_name(kh_finish finish)
{
    static const char *const names[] = {"end", "length", "stop", "context", "stopped"};
    return names[finish];
}

json_t *cli_answer_json(const cli_answer *answer)
{
    kh_session_report report;
    kh_session_get_report(answer->session, &report);
    double mass = answer->args->stats ? report.kept_mass : (double)NAN;
    return json_pack(
        "{s:s, s:s, s:o, s:o, s:I, s:o, s:I, s:o, s:I, s:o, s:I, s:s, s:I}", "attn",
        kh_session_attn(answer->session), "ff", kh_session_ff(answer->session), "text",
        wire_text(answer->text.data, answer->text.size), "tokens",
        wire_ids(answer->ids, answer->id_count), "prompt_tokens", (json_int_t)answer->prompt_tokens,
        "prompt_seconds", wire_real(answer->read_seconds), "generated_tokens",
        (json_int_t)answer->result.tokens, "generate_seconds", wire_real(answer->result.seconds),
        "peak_bytes", (json_int_t)kh_peak_memory(), "kept_mass", wire_real(mass), "seed",
        (json_int_t)answer->sampler.seed, "finish", finish_name(answer->result.finish),
        "cached_tokens", (json_int_t)answer->cached_tokens);
}

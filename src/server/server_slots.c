/* Slots: sessions whose answers grow together.
 *
 *     root (reads nothing)
 *      |-- slot 0  | prompt ........ | answer ..      an ask comes to the idle slot that has read most of its prompt
 *      |-- slot 1  | prompt ...                       its session is rewound to what both have in common
 *      `-- slot 2  (idle, keeps what it read)         and reads the rest
 *
 * A round is one part of ONE slot's prompt, prompts taking turns, and one token for every answer, in one pass
 * (kh_generators_advance). A part is short while others answer, so a long prompt delays each of their tokens by the
 * time of PART tokens and is itself read at that speed; alone it is read in whole batches.
 *
 * What one client said is another's prefix only if both sent the same tokens: a slot gives nothing away but time. */
#include "server/server_impl.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PART = 64, MOST_SLOTS = 64 };

kh_status server_slots_open(server *s)
{
    kh_session_options options = s->options.session;
    kh_model_kind kind = kh_model_get_kind(s->model);
    const kh_model_info *info = kh_model_get_info(s->model);
    snprintf(s->attn, sizeof s->attn, "%s", options.attn ? options.attn : "full");
    snprintf(s->ff, sizeof s->ff, "%s", options.ff ? options.ff : "dense");
    s->context = (size_t)info->context;
    if (kind == KH_MODEL_ENCODER) return KH_OK;
    options.forks = s->options.slots;
    KH_TRY(kh_session_open(&s->root.session, s->model, &options));
    for (size_t i = 0; i < s->options.slots; i++) {
        s->slots[i].id = (int)i;
        KH_TRY(kh_session_fork(&s->slots[i].session, s->root.session));
    }
    s->context = kh_session_context(s->root.session);
    snprintf(s->attn, sizeof s->attn, "%s", kh_session_attn(s->root.session));
    snprintf(s->ff, sizeof s->ff, "%s", kh_session_ff(s->root.session));
    return server_steering_open(s);
}

void server_slots_close(server *s)
{
    for (size_t i = 0; i < s->options.slots; i++) kh_session_close(s->slots[i].session);
    kh_session_close(s->root.session);
    server_steering_close(s);
}

static void publish(server *s, const server_slot *slot)
{
    server_slot_state *state = &s->states[slot->id];
    pthread_mutex_lock(&s->lock);
    state->busy = slot->job != NULL;
    state->length = kh_session_length(slot->session);
    if (!slot->job) state->decoded = 0;
    pthread_mutex_unlock(&s->lock);
}

static void stop_session(void *session)
{
    kh_session_stop(session);
}

/* ---- the beginning of an answer */

static size_t common(const kh_session *session, const server_ask *ask)
{
    const int32_t *tokens = kh_session_tokens(session);
    size_t length = kh_session_length(session), n = 0;
    while (n < length && n < ask->count && tokens[n] == ask->ids[n]) n++;
    return n;
}

static server_slot *choose(server *s, const server_ask *ask)
{
    server_slot *best = NULL;
    size_t most = 0;
    for (size_t i = 0; i < s->options.slots; i++) {
        server_slot *slot = &s->slots[i];
        if (slot->job || !slot->session) continue;
        size_t n = common(slot->session, ask);
        if (best && (n < most || (n == most && slot->used >= best->used))) continue;
        best = slot;
        most = n;
    }
    return best;
}

int server_slots_take(server *s, server_job *job)
{
    server_ask *ask = job->ask;
    server_slot *slot = choose(s, ask);
    if (!slot) return 0;
    slot->job = job;
    slot->read = 0;
    slot->used = ++s->uses;
    slot->started = server_seconds();
    ask->slot = slot->id;
    server_on_cancel(job, stop_session, slot->session);
    publish(s, slot);
    return 1;
}

/* At least one token is read, because a session that was rewound has no logits. */
static kh_status rewind_slot(server_slot *slot)
{
    server_ask *ask = slot->job->ask;
    size_t keep = ask->cache ? common(slot->session, ask) : 0;
    if (keep == ask->count) keep--;
    KH_TRY(kh_session_rewind(slot->session, keep));
    ask->kept = slot->read = keep;
    return KH_OK;
}

static kh_status read_source(server *s, server_slot *slot)
{
    server_ask *ask = slot->job->ask;
    int32_t start = kh_model_start(s->model);
    KH_TRY(kh_session_source(slot->session, ask->ids, ask->count));
    slot->read = ask->count;
    return kh_session_read(slot->session, &start, 1, NULL);
}

static kh_status read_part(server *s, server_slot *slot, size_t most)
{
    server_ask *ask = slot->job->ask;
    if (kh_model_get_kind(s->model) == KH_MODEL_ENCODER_DECODER) {
        KH_TRY(read_source(s, slot));
    } else {
        if (slot->read == 0) KH_TRY(rewind_slot(slot));
        size_t n = ask->count - slot->read;
        if (n > most) n = most;
        KH_TRY(kh_session_read(slot->session, ask->ids + slot->read, n, NULL));
        slot->read += n;
    }
    if (slot->read < ask->count) return KH_OK;
    ask->prompt_seconds = server_seconds() - slot->started;
    slot->started = server_seconds();
    KH_TRY(server_reply_begin(ask));
    return kh_generator_open(&slot->generator, slot->session, &ask->generate);
}

/* ---- the end */

static void count(server *s, const server_ask *ask)
{
    pthread_mutex_lock(&s->lock);
    s->running--;
    s->counts.answers++;
    s->counts.prompt_tokens += ask->count - ask->kept;
    s->counts.cached_tokens += ask->kept;
    s->counts.prompt_seconds += ask->prompt_seconds;
    s->counts.predicted_tokens += ask->result.tokens;
    s->counts.predicted_seconds += ask->result.seconds;
    if (server_cancelled(ask->job)) s->counts.cancelled++;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void end(server *s, server_slot *slot, kh_status status)
{
    server_job *job = slot->job;
    server_ask *ask = job->ask;
    server_on_cancel(job, NULL, NULL);
    if (slot->generator) {
        kh_status finished = kh_generator_finish(slot->generator, &ask->result);
        if (status == KH_OK) status = finished;
        kh_generator_close(slot->generator);
        slot->generator = NULL;
    }
    if (status == KH_OK && server_cancelled(job)) status = kh_fail(KH_ERR_STOPPED, "cancelled");
    if (status == KH_OK) status = server_reply_end(ask);
    if (slot->stale && kh_session_rewind(slot->session, 0) == KH_OK) slot->stale = 0;
    slot->job = NULL;
    count(s, ask);
    publish(s, slot);
    server_job_finish(job, status);
    server_job_drop(job);
}

/* ---- a round */

static int read_prompts(server *s)
{
    size_t n = s->options.slots;
    int answering = 0;
    for (size_t i = 0; i < n; i++) answering |= s->slots[i].generator != NULL;
    for (size_t i = 0; i < n; i++) {
        server_slot *slot = &s->slots[(s->turn + i) % n];
        if (!slot->job || slot->generator) continue;
        s->turn = (size_t)slot->id + 1;
        size_t batch = s->options.session.batch ? s->options.session.batch : 512;
        kh_status status = read_part(s, slot, answering && batch > PART ? PART : batch);
        if (status != KH_OK)
            end(s, slot, status);
        else
            publish(s, slot);
        return 1;
    }
    return 0;
}

static int grow(server *s)
{
    kh_generator *growing[MOST_SLOTS];
    size_t n = 0;
    for (size_t i = 0; i < s->options.slots; i++) {
        server_slot *slot = &s->slots[i];
        if (slot->generator && !server_job_behind(slot->job)) growing[n++] = slot->generator;
    }
    if (n == 0) return 0;
    kh_status status = kh_generators_advance(growing, n);
    pthread_mutex_lock(&s->lock);
    s->counts.passes++;
    pthread_mutex_unlock(&s->lock);
    for (size_t i = 0; i < s->options.slots; i++) {
        server_slot *slot = &s->slots[i];
        if (!slot->generator) continue;
        if (kh_generator_done(slot->generator)) {
            end(s, slot, status);
            continue;
        }
        publish(s, slot);
    }
    return 1;
}

int server_slots_round(server *s)
{
    int moved = 0;
    for (size_t i = 0; i < s->options.slots; i++) {
        server_slot *slot = &s->slots[i];
        if (!slot->job || !server_cancelled(slot->job)) continue;
        end(s, slot, kh_fail(KH_ERR_STOPPED, "cancelled"));
        moved = 1;
    }
    moved |= read_prompts(s);
    return moved | grow(s);
}

/* ---- saved sessions */

static int is_name(const char *name)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t n = strlen(name);
    return n > 0 && n <= 100 && name[0] != '.' && strspn(name, letters) == n;
}

static kh_status act(server_job *job, server_slot *slot, const char *action, const char *name)
{
    server *s = job->server;
    kh_buf path = {0};
    double start = server_seconds();
    size_t before = kh_session_length(slot->session);
    kh_status status = KH_OK;
    int restore = strcmp(action, "restore") == 0;
    if (!name) {
        status = kh_session_rewind(slot->session, 0);
        publish(s, slot);
        if (status != KH_OK) return status;
        return server_send(
            job, json_pack("{s:i, s:I}", "id_slot", slot->id, "n_erased", (json_int_t)before));
    }
    status = kh_buf_format(&path, "%s/%s", s->options.slot_folder, name);
    if (status == KH_OK && restore) status = kh_session_load(slot->session, path.data);
    if (status == KH_OK && !restore) status = kh_session_save(slot->session, path.data);
    if (status == KH_OK || restore) publish(s, slot);
    if (status != KH_OK) {
        /* the folder is nobody's business */
        char sentence[512];
        const char *said = kh_last_error();
        if (path.data && strncmp(said, path.data, path.size) == 0) said += path.size;
        snprintf(sentence, sizeof sentence, "%s", said);
        kh_buf_free(&path);
        return kh_fail(status, "%s%s%s", name, *sentence == ':' ? "" : ": ", sentence);
    }
    kh_buf_free(&path);
    size_t n = kh_session_length(slot->session);
    return server_send(job, json_pack("{s:i, s:s, s:I, s:{s:f}}", "id_slot", slot->id, "filename",
                                      name, restore ? "n_restored" : "n_saved", (json_int_t)n,
                                      "timings", restore ? "restore_ms" : "save_ms",
                                      (server_seconds() - start) * 1000));
}

kh_status server_slots_action(server_job *job)
{
    server *s = job->server;
    const char *action = server_job_query(job, "action"), *name = NULL;
    char *behind = NULL;
    long id = strtol(server_job_part(job), &behind, 10);
    if (!s->options.slot_folder)
        return server_refuse(job, 501, "sessions are saved only with --slot-save-path");
    if (!*server_job_part(job) || *behind || id < 0 || (size_t)id >= s->options.slots ||
        !s->slots[id].session)
        KH_FAIL(KH_ERR_NOT_FOUND, "there is no slot '%.40s'", server_job_part(job));
    int erase = action && strcmp(action, "erase") == 0;
    if (!action || (!erase && strcmp(action, "save") != 0 && strcmp(action, "restore") != 0))
        KH_FAIL(KH_ERR_ARGUMENT, "action: save, restore or erase is expected");
    KH_TRY(wire_get_text(server_job_body(job), "filename", &name, NULL));
    if (!erase && (!name || !is_name(name)))
        KH_FAIL(
            KH_ERR_ARGUMENT,
            "filename: a name of letters, digits, '.', '_' and '-' is expected, without a folder");
    if (s->slots[id].job) return server_refuse(job, 409, "slot %ld is at work", id);
    return act(job, &s->slots[id], action, erase ? NULL : name);
}

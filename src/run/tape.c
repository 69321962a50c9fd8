/* The tape: records in one stretch of memory, taken back from the end.
 *
 *     kept   |record, copies|record, copies|segment: state, choices|record, copies| ...
 *
 * The backward pass rewinds the memory record by record, so that what a segment's replay records lies where
 * the records behind it were: with a segment for every block a pass holds the states of all blocks and the
 * records of one. The stretch is address space as large as the machine's memory, paid for page by page when
 * touched and used again by the next step: nothing is allocated once the first step has run, and a pass that
 * would not fit is refused by its backward pass instead of being killed.
 *
 * Where blocks run again memory is what matters: twins of 16 MB and more begin as pages that are not there, and what a
 * record held goes back when it is taken back (12 layers of GPT-2 small's width at 32,768 tokens: 4,084 MiB instead
 * of 4,240).
 *
 * Rejected: a graph of arrays with a gradient each (a second set of every activation, where twins of the
 * pass's few buffers do), and buffers that ops may not write over (a second forward pass in all but name). */
#include "run/tape.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "run/run.h"

#include <string.h>
#include <unistd.h>

enum { PIECE = 1 << 18 /* bytes that are copied as an item */, LONG = 16 << 20 };

kh_status kh_tape_open(kh_tape *tape, size_t most)
{
    *tape = (kh_tape){0};
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (most == 0) most = pages > 0 && page > 0 ? (size_t)pages * (size_t)page : (size_t)1 << 34;
    return kh_arena_init(&tape->kept, "tape", most);
}

void kh_tape_close(kh_tape *tape)
{
    kh_arena_free(&tape->kept);
}

void kh_tape_reset(kh_tape *tape)
{
    kh_arena_rewind(&tape->kept, 0);
    tape->last = NULL;
    tape->twin_count = 0;
    tape->silent = tape->replaying = 0;
    tape->choose = NULL;
    tape->first = NULL;
    tape->lost = 0;
    tape->same.copy = NULL;
}

/* Where memory is what matters, pages of zeros are not there until something is added to them. */
static void clear(const kh_tape *tape, float *twin, size_t n)
{
    if (tape->recompute && n * sizeof *twin >= LONG)
        kh_reserve_clear(twin, n * sizeof *twin);
    else
        memset(twin, 0, n * sizeof *twin);
}

kh_status kh_tape_buffer(kh_tape *tape, kh_arena *arena, const float *buffer, size_t n)
{
    if (tape->twin_count == KH_TAPE_TWINS)
        KH_FAIL(KH_ERR_STATE, "tape: more than %d buffers", KH_TAPE_TWINS);
    kh_tape_twin *twin = &tape->twins[tape->twin_count];
    *twin = (kh_tape_twin){.of = buffer, .n = n};
    KH_TRY(kh_arena_new(arena, &twin->gradient, n, sizeof *twin->gradient));
    clear(tape, twin->gradient, n);
    tape->twin_count++;
    return KH_OK;
}

/* ---- for ops ---- */

int kh_tape_wants(const kh_run *run)
{
    return run->tape && run->tape->silent == 0;
}

void *kh_tape_take(kh_run *run, size_t bytes)
{
    void *memory = kh_arena_take(&run->tape->kept, bytes);
    if (!memory && run->tape->lost == 0) run->tape->lost = bytes;
    return memory;
}

void *kh_tape_push(kh_run *run, kh_status (*back)(kh_run *, kh_tape_record *), size_t size)
{
    kh_tape_record *record = kh_tape_take(run, size);
    if (!record) return NULL;
    memset(record, 0, size);
    record->before = run->tape->last;
    record->back = back;
    run->tape->last = record;
    return record;
}

static void remember(kh_tape *tape, const void *data, const void *copy, size_t bytes)
{
    tape->same.data = data;
    tape->same.copy = copy;
    tape->same.bytes = bytes;
    tape->same.after = tape->last;
}

typedef struct copying {
    char *to;
    const char *from;
    size_t bytes;
} copying;

static void copy_item(void *context, size_t item, int worker)
{
    const copying *c = context;
    size_t at = item * PIECE, n = c->bytes - at < PIECE ? c->bytes - at : PIECE;
    (void)worker;
    memcpy(c->to + at, c->from + at, n);
}

/* One core moves memory at half the speed of two, or less. Stores around the caches change nothing. */
static void copy_bytes(kh_run *run, void *to, const void *from, size_t bytes)
{
    copying c = {to, from, bytes};
    kh_parallel_for(run->pool, (bytes + PIECE - 1) / PIECE, copy_item, &c);
}

/* Every op that writes pushes a record, so behind one record more a result is what its memory holds. */
const void *kh_tape_keep(kh_run *run, const void *data, size_t bytes)
{
    kh_tape *tape = run->tape;
    if (tape->same.copy && tape->same.data == data && tape->same.bytes == bytes && tape->last &&
        tape->last->before == tape->same.after)
        return tape->same.copy;
    void *copy = kh_tape_take(run, bytes);
    if (copy) copy_bytes(run, copy, data, bytes);
    return copy;
}

const void *kh_tape_keep_result(kh_run *run, const void *data, size_t bytes)
{
    const void *copy = kh_tape_keep(run, data, bytes);
    remember(run->tape, data, copy, bytes);
    return copy;
}

const void *kh_tape_lend_result(kh_run *run, const void *data, size_t bytes)
{
    remember(run->tape, data, data, bytes);
    return data;
}

void kh_tape_clear(kh_run *run, float *twin, size_t n)
{
    clear(run->tape, twin, n);
}

/* Buffers are few and lie apart: a search in order. */
float *kh_tape_twin_of(const kh_run *run, const float *at)
{
    for (size_t i = 0; i < run->tape->twin_count; i++) {
        const kh_tape_twin *twin = &run->tape->twins[i];
        if (at >= twin->of && at < twin->of + twin->n) return twin->gradient + (at - twin->of);
    }
    return NULL;
}

float *kh_tape_gradient_of(const kh_run *run, const float *weight)
{
    return weight && run->tape->gradient_of ? run->tape->gradient_of(run->tape->context, weight)
                                            : NULL;
}

/* ---- for the pass ---- */

kh_tape_mark kh_tape_save(const kh_tape *tape)
{
    return tape->last;
}

/* Where blocks run again, what one record held longest would lie there while the records before it are taken back. */
static void forget(kh_tape *tape, size_t from)
{
    size_t bytes = tape->kept.used - from;
    if (tape->recompute && bytes >= LONG) kh_reserve_clear(tape->kept.base + from, bytes);
    kh_arena_rewind(&tape->kept, from);
}

kh_status kh_tape_backward(kh_run *run, kh_tape_mark mark)
{
    kh_tape *tape = run->tape;
    if (tape->lost > 0)
        KH_FAIL(
            KH_ERR_MEMORY,
            "the backward pass needs more than the %zu bytes of its tape (a record of %zu bytes "
            "found no room): a shorter batch, or recompute per block",
            tape->kept.size, tape->lost);
    while (tape->last != mark) {
        kh_tape_record *record = tape->last;
        KH_TRY(record->back(run, record));
        tape->last = record->before;
        tape->same.copy = NULL;
        forget(tape, (size_t)((char *)record - tape->kept.base));
    }
    return KH_OK;
}

/* ---- segments ---- */

typedef struct segment {
    kh_tape_record record;
    kh_tape_body body;
    const float *kept; /* [n] of the state */
    kh_tape_choice *first;
} segment;

static kh_status segment_back(kh_run *run, kh_tape_record *record)
{
    segment *s = (segment *)record;
    kh_tape *tape = run->tape;
    kh_tape_choice *first = tape->first;
    int replaying = tape->replaying;
    copy_bytes(run, s->body.state, s->kept, s->body.n * sizeof *s->kept);
    remember(tape, s->body.state, s->kept, s->body.n * sizeof *s->kept);
    tape->first = s->first;
    tape->replaying = 1;
    kh_status status = s->body.run(run, s->body.context);
    tape->first = first;
    tape->replaying = replaying;
    return status ? status : kh_tape_backward(run, record);
}

/* The first run of a segment inside a replay is no replay of its own. */
static kh_status run_silent(kh_run *run, segment *s)
{
    kh_tape *tape = run->tape;
    kh_tape_choice **choose = tape->choose;
    int replaying = tape->replaying;
    tape->choose = &s->first;
    tape->replaying = 0;
    tape->silent++;
    kh_status status = s->body.run(run, s->body.context);
    tape->silent--;
    tape->replaying = replaying;
    tape->choose = choose;
    return status;
}

kh_status kh_tape_segment(kh_run *run, const kh_tape_body *body)
{
    if (!kh_tape_wants(run)) return body->run(run, body->context);
    segment *s = kh_tape_push(run, segment_back, sizeof *s);
    if (!s) return body->run(run, body->context);
    s->body = *body;
    s->body.context = kh_tape_keep(run, body->context, body->bytes);
    s->kept = kh_tape_keep(run, body->state, body->n * sizeof *s->kept);
    if (!s->body.context || !s->kept) return body->run(run, body->context);
    return body->unread && run->tape->replaying ? KH_OK : run_silent(run, s);
}

int kh_tape_replays(const kh_run *run)
{
    return run->tape->replaying;
}

void kh_tape_leave(kh_run *run, void *what)
{
    kh_tape_choice *choice = kh_tape_take(run, sizeof *choice);
    if (!choice) return;
    *choice = (kh_tape_choice){.what = what};
    *run->tape->choose = choice;
    run->tape->choose = &choice->next;
}

void *kh_tape_find(kh_run *run)
{
    kh_tape_choice *choice = run->tape->first;
    if (!choice) return NULL;
    run->tape->first = choice->next;
    return choice->what;
}

/* The text read on from several positions in one pass, each time under another observer: sweeps.
 *
 *     read       |======================|          what was read, shared by all
 *     branch 0            |-------------|          forks of it, each a span of the same batch
 *     branch 1                 |--------|
 *
 * A pass over few rows is bound by reading the weights once for them; ten branches of five rows take little longer than
 * one. A branch owns at most the pages of its own rows and a copy of the one it begins in, so what fits is counted in
 * pages, of which the inspector reserves a fixed number whatever its context is. */
#include "base/fail.h"
#include "inspect/inspector.h"

enum { PAGE = 64, RESERVED = 2 * KH_BRANCHES };

size_t kh_inspector_branch_forks(size_t context)
{
    size_t pages = (context + PAGE - 1) / PAGE;
    return pages ? (RESERVED + pages - 1) / pages : 1;
}

size_t kh_inspector_branch_room(const kh_inspector *i, size_t rows)
{
    const kh_engine *e = i->root->engine;
    size_t by_rows = e->batch / (rows ? rows : 1),
           by_pages = RESERVED / ((rows + PAGE - 1) / PAGE + 1);
    size_t room = by_rows < by_pages ? by_rows : by_pages;
    if (room > KH_BRANCHES) room = KH_BRANCHES;
    return room ? room : 1;
}

static kh_status read_branches(kh_inspector *i, const size_t *from, const kh_watch *watches,
                               size_t count)
{
    kh_chain chains[KH_BRANCHES];
    kh_probe probes[KH_BRANCHES];
    const int32_t *ids[KH_BRANCHES];
    size_t counts[KH_BRANCHES];
    for (size_t b = 0; b < count; b++) {
        kh_session *s = i->branches[b];
        const kh_watch *w = &watches[b];
        KH_TRY(kh_inspector_follow(i, s, w->reading, from[b]));
        ids[b] = i->ids + from[b];
        counts[b] = i->count - from[b];
        probes[b] = kh_inspector_chain(&chains[b], i, s, w);
        if (w->seen) w->seen(w->context, from[b], counts[b]);
        kh_session_observe(s, probes[b].points ? &probes[b] : NULL);
    }
    KH_TRY(kh_inspector_go_on(i));
    return kh_sessions_read(i->branches, ids, counts, count, &i->stop);
}

/* A branch that is done gives its pages back: the reading may go elsewhere next. Its logits stay. */
static kh_status let_go(kh_inspector *i, size_t count)
{
    for (size_t b = 0; b < count; b++) {
        kh_session_observe(i->branches[b], NULL);
        KH_TRY(kh_session_rewind(i->branches[b], 0));
    }
    return KH_OK;
}

kh_status kh_inspector_branch(kh_inspector *i, const size_t *from, const kh_watch *watches,
                              size_t count)
{
    i->alone = count == 1;
    if (i->alone) return kh_inspector_replay(i, from[0], i->count, watches);
    for (size_t b = 0; b < count; b++)
        if (!i->branches[b]) KH_TRY(kh_session_fork(&i->branches[b], i->root));
    kh_status status = read_branches(i, from, watches, count);
    kh_status gone = let_go(i, count);
    return status == KH_OK ? gone : status;
}

const float *kh_inspector_branched(const kh_inspector *i, size_t branch)
{
    return i->alone ? kh_inspector_replayed(i) : i->branches[branch]->logits;
}

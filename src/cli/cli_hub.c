/* Models from a hub, as the verbs see them: a name goes in, a path comes out, and who waits is told.
 *
 * On a terminal a transfer is a bar; elsewhere one note says what begins. Faults that are waited out
 * are notes in both. The first Ctrl-C ends a transfer at the next block, so that there is time to say
 * what is kept. */
#include "cli/cli.h"

#include "base/fail.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct follower {
    kh_hub_stage last;
    int begun;
} follower;

/* "[2/5] model-00001-of-00003.gguf", its beginning cut where it is long */
static void title(char *out, size_t size, const kh_hub_progress *p)
{
    enum { MOST = 28 };
    const char *slash = strrchr(p->file, '/'), *name = slash ? slash + 1 : p->file;
    size_t n = strlen(name);
    char place[32] = "";
    if (p->count > 1) snprintf(place, sizeof place, "[%zu/%zu] ", p->index + 1, p->count);
    snprintf(out, size, "%s%s%s%s", p->stage == KH_HUB_CHECK ? "checking " : "", place,
             n > MOST ? "..." : "", n > MOST ? name + n - MOST : name);
}

static int follow(void *context, const kh_hub_progress *p)
{
    follower *f = context;
    char text[96], bytes[32];
    int news = f->last != p->stage;
    f->last = p->stage;
    if (p->stage == KH_HUB_RETRY && news)
        cli_note("%s; trying again in %.1f s", p->reason, p->seconds);
    if (p->stage == KH_HUB_WAIT && news)
        cli_note("another program is fetching %s: waiting for it", p->file);
    if (p->stage == KH_HUB_FETCH && !f->begun++ && !isatty(STDERR_FILENO))
        cli_note("fetching %zu file%s, %s", p->count, p->count == 1 ? "" : "s",
                 cli_bytes(bytes, sizeof bytes, p->all_size));
    if (p->stage == KH_HUB_FETCH || p->stage == KH_HUB_CHECK) {
        title(text, sizeof text, p);
        cli_progress_bytes(text, p->done, p->size);
    }
    return cli_interrupted();
}

kh_status cli_hub_pull(kh_hub_model **out, const cli_args *args, const char *name, unsigned flags)
{
    follower f = {.last = KH_HUB_ASK};
    kh_hub_options options = {.flags = flags | (args->offline ? KH_HUB_OFFLINE : 0u),
                              .tries = (int)args->tries,
                              .progress = follow,
                              .context = &f};
    cli_signals_await(1);
    kh_status status = kh_hub_pull(out, name, &options);
    cli_progress_end();
    cli_signals_await(0);
    if (status == KH_ERR_STOPPED && f.begun && !cli_quiet)
        cli_say("stopped; what has arrived is kept, and the same command goes on from there");
    if (status == KH_OK && *(*out)->notice)
        cli_note("%s; using the copy in the cache", (*out)->notice);
    return status;
}

kh_status cli_hub_model(kh_hub_model **out, const cli_args *args)
{
    *out = NULL;
    if (!args->hf_file) return cli_hub_pull(out, args, args->hf, KH_HUB_FALL_BACK);
    kh_buf name = {0};
    int head = (int)strcspn(args->hf, ":");
    kh_status status = kh_buf_format(&name, "%.*s:%s", head, args->hf, args->hf_file);
    if (status == KH_OK) status = cli_hub_pull(out, args, name.data, KH_HUB_FALL_BACK);
    kh_buf_free(&name);
    return status;
}

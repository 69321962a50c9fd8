/* Which earlier token did each layer look at most when it predicted the next word?
 *
 *     where_it_looked MODEL.gguf "The keys are on the table. Where are the keys? On the"
 *
 * A probe watches the sparse rows of attention that were really computed; nothing of size L x L exists.
 */
// run: MODEL "The keys are on the table. Where are the keys? On the"
#include <keyhole/keyhole.h>
#include <stdio.h>
#include <string.h>

typedef struct watcher {
    const kh_model *model;
    const int32_t *ids;
    int32_t last; /* position of the last token */
    int layer, head;
    uint32_t key;
    float weight;
} watcher;

static void tell(const watcher *w)
{
    char piece[64];
    size_t n = kh_model_piece(w->model, w->ids[w->key], piece, sizeof piece);
    printf("layer %2d  head %d  weight %.2f  token %u \"%.*s\"\n", w->layer, w->head,
           (double)w->weight, w->key, (int)(n < sizeof piece ? n : sizeof piece), piece);
}

static void watch(void *context, const kh_attn_row *row)
{
    watcher *w = context;
    if (row->position != w->last) return;
    if (row->layer != w->layer) {
        if (w->weight > 0) tell(w);
        w->layer = row->layer;
        w->weight = 0;
    }
    /* the first token collects the attention of heads that look for nothing */
    for (size_t i = 0; i < row->count; i++)
        if (row->keys[i] > 0 && row->weights[i] > w->weight) {
            w->weight = row->weights[i];
            w->key = row->keys[i];
            w->head = row->head;
        }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: where_it_looked MODEL.gguf \"a text\"\n");
        return 2;
    }
    kh_model *model = NULL;
    kh_session *session = NULL;
    int32_t *ids = NULL;
    size_t count = 0;
    kh_status status = kh_model_open(&model, argv[1]);
    if (status == KH_OK) status = kh_session_open(&session, model, NULL);
    if (status == KH_OK)
        status = kh_model_tokenize(model, argv[2], strlen(argv[2]), KH_TEXT_EDGES, &ids, &count);
    if (status == KH_OK) {
        watcher w = {.model = model, .ids = ids, .last = (int32_t)count - 1, .layer = -1};
        kh_probe probe = {
            .context = &w, .points = UINT64_C(1) << KH_POINT_ATTN_ROWS, .rows = watch};
        kh_session_observe(session, &probe);
        status = kh_session_read(session, ids, count, NULL);
        if (status == KH_OK && w.weight > 0) tell(&w);
    }
    if (status != KH_OK) fprintf(stderr, "where_it_looked: %s\n", kh_last_error());
    kh_free_ids(ids);
    kh_session_close(session);
    kh_model_close(model);
    return kh_status_exit(status);
}

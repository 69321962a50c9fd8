/* Completes a text: open a model, read a prompt, answer.
 *
 *     complete MODEL.gguf "The capital of France is"
 *
 * Build against an installed keyhole:  cc complete.c $(pkg-config --cflags --libs keyhole)
 */
// run: MODEL "The capital of France is"
#include <keyhole/keyhole.h>
#include <stdio.h>
#include <string.h>

static kh_status show(void *context, const char *text, size_t size, const kh_choice *chosen,
                      const kh_choice *alternatives, size_t count)
{
    (void)context;
    (void)chosen;
    (void)alternatives;
    (void)count;
    fwrite(text, 1, size, stdout);
    return KH_OK;
}

static kh_status complete(const char *path, const char *prompt, kh_model **model,
                          kh_session **session)
{
    kh_session_options options = {.attn = "topk:k=64"};
    kh_generate_options answer = {.max_tokens = 16, .token = show}; /* greedy */
    kh_generate_result result;
    int32_t *ids = NULL;
    size_t count = 0;
    kh_status status = kh_model_open(model, path);
    if (status == KH_OK) status = kh_session_open(session, *model, &options);
    if (status == KH_OK)
        status = kh_model_tokenize(*model, prompt, strlen(prompt), KH_TEXT_EDGES, &ids, &count);
    if (status == KH_OK) status = kh_session_read(*session, ids, count, NULL);
    if (status == KH_OK) status = kh_generate(*session, &answer, &result);
    kh_free_ids(ids);
    return status;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: complete MODEL.gguf \"a prompt\"\n");
        return 2;
    }
    kh_model *model = NULL;
    kh_session *session = NULL;
    kh_status status = complete(argv[1], argv[2], &model, &session);
    if (status == KH_OK)
        printf("\n");
    else
        fprintf(stderr, "complete: %s\n", kh_last_error());
    kh_session_close(session);
    kh_model_close(model);
    return kh_status_exit(status);
}

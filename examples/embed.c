/* How near are texts to the first one?
 *
 *     embed MODEL "a cat on a mat" "a feline on a rug" "stock prices fell"
 *
 * MODEL is an encoder: a GGUF file, or a folder as Hugging Face publishes them. Vectors have length 1, so a
 * product is a cosine.
 */
// run: tests/golden/families/bert-embed "the cat sat on a mat" "a dog ran"
#include <keyhole/keyhole.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64 };

static kh_status compare(const kh_model *model, const kh_encoder_text *texts, size_t count,
                         char **words)
{
    size_t width = (size_t)kh_model_get_info(model)->width;
    float *vectors = malloc(count * width * sizeof *vectors);
    kh_encoder *encoder = NULL;
    if (!vectors) return KH_ERR_MEMORY;
    kh_status status = kh_encoder_open(&encoder, model, NULL);
    if (!status) status = kh_encoder_embed(encoder, vectors, texts, count, KH_POOLING_MODEL, 1);
    for (size_t i = 1; !status && i < count; i++) {
        double cosine = 0;
        for (size_t c = 0; c < width; c++)
            cosine += (double)vectors[c] * (double)vectors[i * width + c];
        printf("%7.4f  %s\n", cosine, words[i]);
    }
    kh_encoder_close(encoder);
    free(vectors);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 4 || argc > MOST + 2) {
        fprintf(stderr, "usage: embed MODEL \"a text\" \"another\" ...\n");
        return 2;
    }
    kh_model *model = NULL;
    kh_encoder_text texts[MOST];
    int32_t *ids[MOST];
    size_t count = 0;
    kh_status status = kh_model_open(&model, argv[1]);
    for (int i = 2; !status && i < argc; i++) {
        status = kh_model_tokenize(model, argv[i], strlen(argv[i]), KH_TEXT_EDGES, &ids[count],
                                   &texts[count].count);
        if (status) break;
        texts[count].ids = ids[count];
        texts[count++].types = NULL;
    }
    if (!status) status = compare(model, texts, count, argv + 2);
    if (status) fprintf(stderr, "embed: %s\n", kh_last_error());
    while (count > 0) kh_free_ids(ids[--count]);
    kh_model_close(model);
    return status ? 1 : 0;
}

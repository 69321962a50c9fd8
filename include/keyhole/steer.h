/* keyhole/steer.h: directions that are added to the residual stream: learned, kept in llama.cpp's files, applied.
 *
 * A control vector has a direction for some layers: what is added behind layer i (counted from 0), to every row. In the
 * file it is the tensor direction.i, so the file's numbers are the layers', and layer 0 has none: it is never steered. */
#ifndef KEYHOLE_STEER_H
#define KEYHOLE_STEER_H

#include <keyhole/inspect.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kh_control kh_control;

/* A GGUF file of the architecture "controlvector", for a model of this width. Tensors of the same layer add up. */
KH_API kh_status kh_control_open(kh_control **out, const kh_model *model, const char *path);
KH_API void kh_control_close(kh_control *control); /* takes NULL */
/* Atomically; controlvector.model_hint is the model's architecture. */
KH_API kh_status kh_control_save(const kh_control *control, const char *path);
/* [width], or NULL: this layer is not steered. */
KH_API const float *kh_control_direction(const kh_control *control, int layer);
KH_API int kh_control_layers(const kh_control *control); /* of the model */
/* From directions [layers][width] of the caller; layer 0 is not taken. */
KH_API kh_status kh_control_make(kh_control **out, const kh_model *model, const float *directions);

/* ---- learning ---- */

typedef struct kh_ids {
    const int32_t *ids; /* [count] */
    size_t count;
} kh_ids;

typedef enum kh_learn {
    KH_LEARN_MEAN, /* the mean difference: as long as the two sides are apart */
    KH_LEARN_PCA /* the first principal direction of the differences, about 0: length 1, towards `with` */
} kh_learn;

/* From pairs of texts that differ in what is to be learned: the stream behind every layer at each text's last token,
 * `with` less `without`. `without` NULL: the mean of `with` alone. Takes the inspector's text; edits do not apply. */
KH_API kh_status kh_control_learn(kh_control **out, kh_inspector *inspector, const kh_ids *with,
                                  const kh_ids *without, size_t count, kh_learn how);
/* One direction at every layer, of length 1: a token's, a neuron's; less `minus` where that is not NULL (and then made
 * length 1 again). */
KH_API kh_status kh_control_point(kh_control **out, const kh_model *model,
                                  const kh_direction *direction, const kh_direction *minus);

/* What the directions promote, as raw products with the output head: `tokens` of each end for every layer of the model,
 * top and bottom [layers]; a layer without a direction has none. Free each with kh_vocabulary_end_free, on failure too. */
KH_API kh_status kh_control_tokens(kh_inspector *inspector, const kh_control *control,
                                   size_t tokens, kh_vocabulary_end *top,
                                   kh_vocabulary_end *bottom);

/* ---- applying ---- */

/* The sum of several control vectors, each with its strength. */
typedef struct kh_steering kh_steering;
KH_API kh_status kh_steering_open(kh_steering **out, const kh_model *model);
KH_API void kh_steering_close(kh_steering *steering); /* takes NULL */
KH_API void kh_steering_clear(kh_steering *steering);
/* Adds scale times the directions of layers [first, last]; 0 and 0: all. */
KH_API kh_status kh_steering_add(kh_steering *steering, const kh_control *control, float scale,
                                 int first, int last);
/* For kh_session_observe: adds it to every row of every pass, as it is then. Valid as long as the steering. */
KH_API const kh_probe *kh_steering_probe(const kh_steering *steering);
/* The same as edits of an inspector: at most `layers` of them are written; returns how many. They look at the
 * steering's memory until kh_inspector_set has taken them. */
KH_API size_t kh_steering_edits(const kh_steering *steering, kh_edit *edits /* [layers] */);

#ifdef __cplusplus
}
#endif
#endif

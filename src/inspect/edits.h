/* inspect/edits.h: edits at work: prepared numbers, and the observer that applies them. */
#ifndef KH_INSPECT_EDITS_H
#define KH_INSPECT_EDITS_H

#include "kern/kern.h"

#include <keyhole/inspect.h>

struct kh_kv;
struct kh_model;

/* An edit with what it needs. */
typedef struct kh_edit_work {
    kh_edit edit;
    kh_point point;            /* at which it applies */
    float *direction, *second; /* [D] of the edits that have them */
    float *mean;               /* [width]: KH_EDIT_MEAN */
    float level; /* KH_EDIT_COMPAT: what becomes of the pre-activation; EXACT: of the coefficient */
    float *
        weights; /* KH_COMPONENT_KEY: [2][batch] what the rows in flight gave to the key, and to the other one */
    float *values; /* [2][E] of both keys */
} kh_edit_work;

typedef struct kh_edits {
    kh_edit_work *works; /* [count], in the order in which they apply */
    size_t count;
    size_t batch;    /* most rows that are read at once */
    size_t width;    /* D */
    int measured;    /* means and levels are known */
    uint64_t points; /* that the observer asks for */
} kh_edits;

/* Copies them, and finds directions. Passes have at most `batch` rows. *out is empty on failure. */
kh_status kh_edits_open(kh_edits *out, const struct kh_model *model, const kh_kern *kern,
                        size_t batch, const kh_edit *edits, size_t count);
void kh_edits_close(kh_edits *edits);
/* Whether two lists do the same. */
int kh_edits_equal(const kh_edits *edits, const kh_edit *others, size_t count);
/* Edits that need numbers of the unedited text. */
int kh_edits_measures(const kh_edits *edits);

/* The direction [D] as it is applied, to be freed with kh_free; NULL where there is none. */
kh_status kh_direction_find(float **out, const kh_direction *direction,
                            const struct kh_model *model, const kh_kern *kern);

/* Where rows of a point stand. */
typedef struct kh_edit_place {
    const struct kh_model *model;
    const kh_kern *kern;
    const struct kh_kv *kv; /* of the session that is reading */
    size_t position;        /* of the first row */
    size_t prompt;          /* positions of the prompt */
} kh_edit_place;
/* Applies what is meant for a point, edit by edit. */
void kh_edits_point(kh_edits *edits, const kh_edit_place *place, kh_point point, int layer,
                    float *data, size_t rows, size_t width);
void kh_edits_row(kh_edits *edits, const kh_attn_row *row);

/* The point at which a part can be seen and changed. */
kh_point kh_component_point(kh_component_kind kind);
/* How many numbers a part has at a position, and where they begin in a row of its point. */
size_t kh_component_width(const struct kh_model *model, const kh_component *part, size_t *from);

#endif

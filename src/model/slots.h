/* model/slots.h: the tables of tensors that binding follows; private to model/. */
#ifndef KH_MODEL_SLOTS_H
#define KH_MODEL_SLOTS_H

#include "model/description.h"

/* What a tensor's rows and columns count. */
enum kh_slot_width {
    KH_W_D,
    KH_W_F,
    KH_W_HE,
    KH_W_GE,
    KH_W_E,
    KH_W_V,
    KH_W_CONTEXT,
    KH_W_TYPES,
    KH_W_X,
    KH_W_XF,
    KH_W_SF,
    KH_W_ROT,
    KH_W_2,
    KH_W_FEATURES,
    KH_W_DENSE,
    KH_W_INNER,
    KH_W_LAST, /* what the last layer of a head for classes reads */
    KH_W_CLASSES
};
enum kh_slot_kind { KH_SLOT_VECTOR, KH_SLOT_MATRIX, KH_SLOT_EXPERTS };

typedef struct kh_slot {
    const char *name, *other; /* other: what it is called in an encoder-decoder, if not the same */
    size_t offset;            /* in kh_block or kh_weights */
    unsigned parts;           /* all of them */
    uint8_t kind, rows, cols; /* enum kh_slot_kind, enum kh_slot_width */
} kh_slot;

extern const kh_slot kh_block_slots[], kh_model_slots[];
extern const int kh_block_slot_count, kh_model_slot_count;

/* The number that a width stands for. */
size_t kh_slot_width(const kh_description *d, const kh_sizes *sizes, uint8_t width);

#endif

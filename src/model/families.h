/* model/families.h: the families, one line each. */
#ifndef KH_MODEL_FAMILIES_H
#define KH_MODEL_FAMILIES_H

#include "model/description.h"

#define KH_FAMILY_LIST(X)                                                                          \
    X(llama)                                                                                       \
    X(qwen2)                                                                                       \
    X(qwen3)                                                                                       \
    X(gemma3)

#define KH_FAMILY_DECLARE(name) extern const kh_family kh_family_##name;
KH_FAMILY_LIST(KH_FAMILY_DECLARE)
#undef KH_FAMILY_DECLARE

#endif

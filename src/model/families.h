/* model/families.h: the families, one line each: C name, general.architecture. */
#ifndef KH_MODEL_FAMILIES_H
#define KH_MODEL_FAMILIES_H

#include "model/description.h"

#define KH_FAMILY_LIST(X)                                                                          \
    X(llama, "llama")                                                                              \
    X(phi3, "phi3")                                                                                \
    X(qwen2, "qwen2")                                                                              \
    X(qwen2moe, "qwen2moe")                                                                        \
    X(qwen3, "qwen3")                                                                              \
    X(qwen3moe, "qwen3moe")                                                                        \
    X(gemma2, "gemma2")                                                                            \
    X(gemma3, "gemma3")                                                                            \
    X(gpt2, "gpt2")                                                                                \
    X(gptneox, "gptneox")                                                                          \
    X(bert, "bert")                                                                                \
    X(lra, "lra")                                                                                  \
    X(nomic_bert, "nomic-bert")                                                                    \
    X(t5, "t5")                                                                                    \
    X(t5encoder, "t5encoder")

#define KH_FAMILY_DECLARE(name, text) extern const kh_family kh_family_##name;
KH_FAMILY_LIST(KH_FAMILY_DECLARE)
#undef KH_FAMILY_DECLARE

#endif

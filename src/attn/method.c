/* The table of methods, expanded from the list in method.h; nothing else names them all. */
#include "attn/method.h"

const kh_attn_method *const kh_attn_methods[KH_ATTN_METHOD_COUNT] = {
#define KH_METHOD(name) [KH_ATTN_METHOD_##name] = &kh_attn_##name,
    KH_ATTN_METHODS(KH_METHOD)
#undef KH_METHOD
};

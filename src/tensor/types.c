/* The table of element types, expanded from KH_TYPE_LIST, and the names of the types that are known
 * to exist but are not read (so that a refusal can name them). */
#include "tensor/types.h"

typedef struct type_row {
    const char *name;
    uint16_t block, bytes;
} type_row;

static const type_row table[KH_TYPE_LIMIT] = {
#define ROW(name, id, elements, size) [id] = {#name, elements, size},
    KH_TYPE_LIST(ROW)
#undef ROW
};

static const char *const foreign[] = {
    [9] = "Q8_1",        [15] = "Q8_K",       [16] = "IQ2_XXS",  [17] = "IQ2_XS",
    [18] = "IQ3_XXS",    [19] = "IQ1_S",      [21] = "IQ3_S",    [22] = "IQ2_S",
    [24] = "I8",         [25] = "I16",        [26] = "I32",      [27] = "I64",
    [28] = "F64",        [29] = "IQ1_M",      [31] = "Q4_0_4_4", [32] = "Q4_0_4_8",
    [33] = "Q4_0_8_8",   [34] = "TQ1_0",      [35] = "TQ2_0",    [36] = "IQ4_NL_4_4",
    [37] = "IQ4_NL_4_8", [38] = "IQ4_NL_8_8", [39] = "MXFP4",    [40] = "NVFP4"};

int kh_type_known(int id)
{
    return id >= 0 && id < KH_TYPE_LIMIT && table[id].name;
}

const char *kh_type_name(kh_type type)
{
    return kh_type_known(type) ? table[type].name : "?";
}

size_t kh_type_block(kh_type type)
{
    return table[type].block;
}

size_t kh_type_bytes(kh_type type)
{
    return table[type].bytes;
}

const char *kh_type_foreign_name(int id)
{
    if (kh_type_known(id)) return table[id].name;
    int n = (int)(sizeof foreign / sizeof *foreign);
    return id >= 0 && id < n ? foreign[id] : NULL;
}

size_t kh_type_row_bytes(kh_type type, size_t n)
{
    return n / table[type].block * table[type].bytes;
}

/* The table of families, expanded from the list, and its look-up by general.architecture. */
#include "model/families.h"

#include <string.h>

static const kh_family *const table[] = {
#define ENTRY(name, text) &kh_family_##name,
    KH_FAMILY_LIST(ENTRY)
#undef ENTRY
};

const kh_family *kh_family_find(const char *name, size_t size)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strlen(table[i]->name) == size && memcmp(table[i]->name, name, size) == 0)
            return table[i];
    return NULL;
}

const kh_family *kh_family_at(size_t index)
{
    return index < sizeof table / sizeof *table ? table[index] : NULL;
}

const char *kh_family_names(void)
{
#define WORD(name, text) ", " text
    static const char names[] = KH_FAMILY_LIST(WORD);
#undef WORD
    return names + 2;
}

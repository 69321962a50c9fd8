/* Goldens of the families: a list of named arrays (tests/golden/README.md). */
#include "support/family_golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

void family_open(family_golden *g, const char *name)
{
    char path[128];
    *g = (family_golden){0};
    snprintf(path, sizeof path, "families/%s.bin", name);
    golden_open(&g->file, path, "KHFAMILY");
    g->n = golden_u32(&g->file);
    assert_true(g->n <= FAMILY_ARRAYS);
    for (size_t i = 0; i < g->n; i++) {
        family_array *a = &g->arrays[i];
        memcpy(a->name, golden_take(&g->file, 24, 1), 24);
        a->type = golden_u32(&g->file);
        a->n_dims = golden_u32(&g->file);
        memcpy(a->dims, golden_take(&g->file, 4, 4), 16);
        assert_true(a->type <= 1 && a->n_dims <= 4);
        a->count = 1;
        for (uint32_t d = 0; d < a->n_dims; d++) a->count *= a->dims[d];
        a->data = golden_take(&g->file, a->count, 4);
    }
}

void family_close(family_golden *g)
{
    golden_close(&g->file);
}

const family_array *family_find(const family_golden *g, const char *name)
{
    for (size_t i = 0; i < g->n; i++)
        if (strcmp(g->arrays[i].name, name) == 0) return &g->arrays[i];
    return NULL;
}

const float *family_floats(const family_golden *g, const char *name)
{
    const family_array *a = family_find(g, name);
    if (!a || a->type != 0) fail_msg("no array of floats '%s'", name);
    return a->data;
}

const int32_t *family_ints(const family_golden *g, const char *name, size_t *count)
{
    const family_array *a = family_find(g, name);
    if (!a || a->type != 1) fail_msg("no array of integers '%s'", name);
    if (count) *count = a->count;
    return a->data;
}

/* --lora FILE[:SCALE]: which adapters, and how strong.
 *
 * llama.cpp spells it --lora FNAME,... and --lora-scaled FNAME:SCALE,...; both are one option here, and all
 * forms of it are read. A colon or a comma may belong to a name: what exists as it stands is a name, and
 * what is behind the last colon is a scale only where it is a number. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One adapter of text[0 .. size); its name lies in memory of the list. */
static kh_status add(cli_loras *out, size_t *room, const char *text, size_t size)
{
    char *name, *end;
    float strength = 1;
    if (size == 0) KH_FAIL(KH_ERR_ARGUMENT, "--lora: a name is missing");
    KH_TRY(kh_grow(&out->items, out->count, room, sizeof *out->items, "the adapters"));
    name = kh_strndup(text, size);
    if (!name) KH_FAIL(KH_ERR_MEMORY, "no memory for the names of adapters");
    char *colon = strrchr(name, ':');
    if (colon && colon[1] && access(name, F_OK) != 0) {
        float found = strtof(colon + 1, &end);
        if (*end == 0) strength = found;
        if (*end == 0) *colon = 0;
    }
    out->items[out->count++] = (kh_convert_lora){.path = name, .strength = strength};
    return KH_OK;
}

kh_status cli_loras_open(cli_loras *out, const cli_args *args)
{
    size_t room = 0;
    *out = (cli_loras){0};
    for (size_t i = 0; i < args->loras.count; i++) {
        const char *text = args->loras.items[i];
        size_t size = strlen(text);
        while (access(text, F_OK) != 0 && memchr(text, ',', size)) {
            size_t one = strcspn(text, ",");
            KH_TRY(add(out, &room, text, one));
            text += one + 1;
            size -= one + 1;
        }
        KH_TRY(add(out, &room, text, size));
    }
    return KH_OK;
}

void cli_loras_close(cli_loras *loras)
{
    for (size_t i = 0; i < loras->count; i++) kh_free((void *)(uintptr_t)loras->items[i].path);
    kh_free(loras->items);
}

kh_status cli_loras_add(kh_model *model, const cli_args *args)
{
    cli_loras loras;
    kh_status status = cli_loras_open(&loras, args);
    for (size_t i = 0; i < loras.count && status == KH_OK; i++)
        status = kh_model_add_lora(model, loras.items[i].path, loras.items[i].strength);
    cli_loras_close(&loras);
    for (size_t i = 0; status == KH_OK && args->verbose && i < kh_model_lora_count(model); i++) {
        const kh_lora_info *info = kh_model_get_lora(model, i);
        cli_say("adapter %s, %s, strength %g, %zu tensors", info->path, info->format,
                (double)info->strength, info->tensors);
    }
    return status;
}

/* keyhole show: what a file is, what is in it, and how much memory a context of it will need. */
#include "cli/cli.h"

#include "base/fail.h"

#include <stdio.h>
#include <string.h>

enum { TYPES = 32 };

typedef struct share {
    const char *type;
    size_t tensors;
    uint64_t bytes;
} share;

static kh_status count_types(const kh_model *model, share *shares, size_t *count)
{
    *count = 0;
    for (size_t i = 0; i < kh_model_tensor_count(model); i++) {
        kh_tensor_info tensor;
        KH_TRY(kh_model_tensor(model, i, &tensor));
        size_t at = 0;
        while (at < *count && strcmp(shares[at].type, tensor.type) != 0) at++;
        if (at == TYPES) continue;
        if (at == *count) shares[(*count)++] = (share){.type = tensor.type};
        shares[at].tensors++;
        shares[at].bytes += tensor.bytes;
    }
    return KH_OK;
}

/* As kh_model_kind. */
static const char *const kinds[] = {"decoder", "encoder", "encoder and decoder"};

static void print_head(const kh_model *model, const char *format)
{
    const kh_model_info *i = kh_model_get_info(model);
    kh_model_kind kind = kh_model_get_kind(model);
    char bytes[32];
    cli_out("name            %s\n", *i->name ? i->name : "(none)");
    cli_out("file            %s, %s\n", i->path, cli_bytes(bytes, sizeof bytes, i->file_bytes));
    cli_out("identity        %s\n", i->identity);
    cli_out("architecture    %s (%s), %.1f million parameters, mostly %s%s\n", i->architecture,
            kinds[kind], (double)i->parameters / 1e6, i->quantisation,
            i->tied && kind != KH_MODEL_ENCODER ? ", tied output head" : "");
    cli_out("layers          ");
    if (i->encoder_layers) cli_out("%d and ", i->encoder_layers);
    cli_out("%d of width %d, feed-forward %d\n", i->layers, i->width, i->ff_width);
    cli_out("heads           %d of width %d, over %d of keys and values\n", i->heads, i->head_width,
            i->key_heads);
    cli_out("trained length  %d tokens\n", i->context);
    if (i->local_layers)
        cli_out("windows         %d keys in %d layers\n", i->window, i->local_layers);
    cli_out("tokenizer       %s%s%s, %d tokens%s\n", i->tokenizer, *i->pre ? " " : "", i->pre,
            i->vocabulary, i->add_bos ? ", bos in front" : "");
    if (kind == KH_MODEL_DECODER) cli_out("chat format     %s\n", *format ? format : "none");
}

static void print_adapters(const kh_model *model)
{
    for (size_t i = 0; i < kh_model_lora_count(model); i++) {
        const kh_lora_info *a = kh_model_get_lora(model, i);
        cli_out("adapter         %s, %s, strength %g: %zu tensors, rank ", a->path, a->format,
                (double)a->strength, a->tensors);
        if (a->least_rank != a->most_rank) cli_out("%zu to ", a->least_rank);
        cli_out("%zu, alpha %g, %.1f million parameters\n", a->most_rank, a->alpha,
                (double)a->parameters / 1e6);
    }
}

static void print_auto(const kh_model *model)
{
    char setting[256];
    const char *source = "";
    if (kh_model_get_kind(model) != KH_MODEL_DECODER) return;
    if (kh_auto_setting(model, setting, sizeof setting, &source) == KH_OK)
        cli_out("--attn auto     %s (%s)\n", setting, source);
}

static kh_status memory_need(const kh_model *model, const cli_args *args,
                             kh_session_options *options, kh_memory_need *need)
{
    *options = cli_session_options(args);
    options->longer = 1; /* the question is allowed, whatever the answer */
    if (options->context == 0) options->context = (size_t)kh_model_get_info(model)->context;
    return kh_model_memory(model, options, need);
}

static kh_status print_memory(const kh_model *model, const cli_args *args)
{
    kh_session_options options;
    kh_memory_need need;
    char file[32], cache[32], compute[32], all[32], adapters[32];
    KH_TRY(memory_need(model, args, &options, &need));
    cli_out("memory          %s at %zu tokens: file %s, cache %s, computation %s",
            cli_bytes(all, sizeof all, need.file + need.cache + need.compute + need.adapters),
            options.context, cli_bytes(file, sizeof file, need.file),
            cli_bytes(cache, sizeof cache, need.cache),
            cli_bytes(compute, sizeof compute, need.compute));
    if (need.adapters)
        cli_out(", adapters %s", cli_bytes(adapters, sizeof adapters, need.adapters));
    cli_out("\n");
    return KH_OK;
}

static kh_status print_metadata(const kh_model *model)
{
    for (size_t i = 0; i < kh_model_metadata_count(model); i++) {
        char key[256], value[512];
        KH_TRY(kh_model_metadata(model, i, key, sizeof key, value, sizeof value));
        for (char *c = value; *c; c++)
            if ((unsigned char)*c < 0x20) *c = ' ';
        cli_out("%-44s %s\n", key, value);
    }
    return KH_OK;
}

static void dimensions(char *out, size_t size, const kh_tensor_info *tensor)
{
    size_t used = 0;
    out[0] = 0;
    for (int d = 0; d < tensor->n_dims && d < 4 && used < size; d++) {
        int n = snprintf(out + used, size - used, "%s%llu", d ? " x " : "",
                         (unsigned long long)tensor->dims[d]);
        used += n > 0 ? (size_t)n : 0;
    }
}

static kh_status print_tensors(const kh_model *model)
{
    cli_table table = {0};
    cli_table_row(&table, "tensor\ttype\tshape\tbytes");
    for (size_t i = 0; i < kh_model_tensor_count(model); i++) {
        kh_tensor_info tensor;
        char shape[96];
        KH_TRY(kh_model_tensor(model, i, &tensor));
        dimensions(shape, sizeof shape, &tensor);
        cli_table_row(&table, "%s\t%s\t%s\t%llu", tensor.name, tensor.type, shape,
                      (unsigned long long)tensor.bytes);
    }
    return cli_table_print(&table);
}

static kh_status print_types(const kh_model *model)
{
    share shares[TYPES];
    size_t count = 0;
    KH_TRY(count_types(model, shares, &count));
    cli_out("tensors         %zu:", kh_model_tensor_count(model));
    for (size_t i = 0; i < count; i++) {
        char bytes[32];
        cli_out("%s %zu %s (%s)", i ? "," : "", shares[i].tensors, shares[i].type,
                cli_bytes(bytes, sizeof bytes, shares[i].bytes));
    }
    cli_out("\n");
    return KH_OK;
}

static int append(json_t *list, json_t *one)
{
    return list && json_array_append_new(list, one) == 0;
}

static kh_status metadata_json(const kh_model *model, json_t *list)
{
    for (size_t i = 0; i < kh_model_metadata_count(model); i++) {
        char key[256], value[512];
        KH_TRY(kh_model_metadata(model, i, key, sizeof key, value, sizeof value));
        json_t *pair = json_pack("{s:o, s:o}", "key", wire_text(key, strlen(key)), "value",
                                 wire_text(value, strlen(value)));
        if (!append(list, pair)) KH_FAIL(KH_ERR_MEMORY, "no memory for the JSON output");
    }
    return KH_OK;
}

static kh_status tensors_json(const kh_model *model, json_t *list)
{
    for (size_t i = 0; i < kh_model_tensor_count(model); i++) {
        kh_tensor_info tensor;
        KH_TRY(kh_model_tensor(model, i, &tensor));
        json_t *shape = json_array();
        for (int d = 0; d < tensor.n_dims && d < 4; d++)
            if (!append(shape, json_integer((json_int_t)tensor.dims[d]))) break;
        json_t *one = json_pack("{s:o, s:s, s:o, s:I}", "name",
                                wire_text(tensor.name, strlen(tensor.name)), "type", tensor.type,
                                "shape", shape, "bytes", (json_int_t)tensor.bytes);
        if (!append(list, one)) KH_FAIL(KH_ERR_MEMORY, "no memory for the JSON output");
    }
    return KH_OK;
}

static json_t *adapters_json(const kh_model *model)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < kh_model_lora_count(model); i++) {
        const kh_lora_info *a = kh_model_get_lora(model, i);
        json_t *one = json_pack(
            "{s:o, s:s, s:f, s:f, s:I, s:I, s:I, s:I}", "path", wire_text(a->path, strlen(a->path)),
            "format", a->format, "strength", (double)a->strength, "alpha", a->alpha, "tensors",
            (json_int_t)a->tensors, "least_rank", (json_int_t)a->least_rank, "most_rank",
            (json_int_t)a->most_rank, "parameters", (json_int_t)a->parameters);
        if (append(list, one)) continue;
        json_decref(list);
        list = NULL;
    }
    return list;
}

static kh_status print_json(const kh_model *model, const cli_args *args)
{
    const kh_model_info *i = kh_model_get_info(model);
    kh_session_options options;
    kh_memory_need need;
    KH_TRY(memory_need(model, args, &options, &need));
    json_t *metadata = json_array(), *tensors = json_array();
    kh_status status = metadata_json(model, metadata);
    if (status == KH_OK) status = tensors_json(model, tensors);
    json_t *object = json_pack(
        "{s:o, s:o, s:s, s:s, s:s, s:I, s:I, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}",
        "path", wire_text(i->path, strlen(i->path)), "name", wire_text(i->name, strlen(i->name)),
        "identity", i->identity, "architecture", i->architecture, "quantisation", i->quantisation,
        "file_bytes", (json_int_t)i->file_bytes, "parameters", (json_int_t)i->parameters, "layers",
        i->layers, "width", i->width, "heads", i->heads, "key_heads", i->key_heads, "head_width",
        i->head_width, "ff_width", i->ff_width, "vocabulary", i->vocabulary, "context", i->context,
        "window", i->window, "local_layers", i->local_layers);
    json_t *rest = json_pack(
        "{s:s, s:i, s:s, s:s, s:s, s:b, s:{s:I, s:I, s:I, s:I, s:I}, s:o, s:o, s:o}", "kind",
        kinds[kh_model_get_kind(model)], "encoder_layers", i->encoder_layers, "tokenizer",
        i->tokenizer, "pre", i->pre, "chat_format", kh_model_chat_format(model), "tied", i->tied,
        "memory", "context", (json_int_t)options.context, "file", (json_int_t)need.file, "cache",
        (json_int_t)need.cache, "compute", (json_int_t)need.compute, "adapters",
        (json_int_t)need.adapters, "adapters", adapters_json(model), "metadata", metadata,
        "tensors", tensors);
    if (!object || !rest || json_object_update(object, rest) != 0 || status != KH_OK) {
        json_decref(object);
        object = NULL;
    }
    json_decref(rest);
    return status == KH_OK ? cli_json_print(object) : status;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    cli_take_model(args, &words, &count);
    if (count) KH_FAIL(KH_ERR_ARGUMENT, "'%s': show takes a model and nothing else", words[0]);
    kh_model *model = NULL;
    KH_TRY(cli_model_open(&model, args, 0));
    kh_status status = KH_OK;
    if (args->json) {
        status = print_json(model, args);
    } else if (args->metadata || args->tensors) {
        if (args->metadata) status = print_metadata(model);
        if (status == KH_OK && args->tensors) status = print_tensors(model);
    } else {
        print_head(model, kh_model_chat_format(model));
        print_adapters(model);
        print_auto(model);
        status = print_types(model);
        if (status == KH_OK) status = print_memory(model, args);
    }
    kh_model_close(model);
    return status;
}

static const kh_opt output[] = {
    CLI_FLAG(metadata, "--metadata", "lists the file's metadata"),
    CLI_FLAG(tensors, "--tensors", "lists the tensors with type, shape (fastest first) and bytes"),
    CLI_FLAG(json, "--json", "prints everything as one JSON object"),
    CLI_FLAG(quiet, "-q --quiet", "no notes on standard error"), CLI_END};

static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Output", output},
                                      {"Memory of a context", cli_options_context},
                                      {"Computation", cli_options_compute},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_show = {
    .group = "Files",
    .command = {.name = "show",
                .does = "what a file is, and the memory that a context needs",
                .words = "[MODEL]",
                .most_words = 1,
                .about = "Describes a model file: its shape, types, tokenizer and chat format, "
                         "what --attn auto means for it, and the memory that a context of -c "
                         "tokens will need with caches of -ctk and -ctv.",
                .example = "keyhole show model.gguf -c 8192 -ctk q8_0 -ctv q8_0",
                .groups = groups},
    .run = run,
};

/* keyhole convert: a model as a GGUF file of another type. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* As kh_convert_type_at has them, so that help and completion can show them. */
static const char *const types[] = {"F32",    "F16",    "BF16",   "Q8_0",   "Q4_0",   "Q4_1",
                                    "Q5_0",   "Q5_1",   "Q2_K",   "Q2_K_S", "Q3_K_S", "Q3_K_M",
                                    "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K",
                                    "Q3_K",   "Q4_K",   "Q5_K",   NULL};

/* Where the name of a type begins at the end of a file's name, behind '.', '-' or '_'; or its end. */
static size_t stem_of(const char *name, size_t size)
{
    for (int i = 0; types[i]; i++) {
        size_t n = strlen(types[i]);
        if (size > n + 1 && strncasecmp(name + size - n, types[i], n) == 0 &&
            strchr(".-_", name[size - n - 1]))
            return size - n - 1;
    }
    return size;
}

/* NAME.gguf or NAME.F16.gguf becomes NAME-Q4_K_M.gguf in the current folder. */
static kh_status output_name(kh_buf *out, const char *model, const char *type)
{
    size_t size = strlen(model);
    while (size > 1 && model[size - 1] == '/') size--;
    size_t begin = size;
    while (begin > 0 && model[begin - 1] != '/') begin--;
    const char *name = model + begin;
    size -= begin;
    if (size > 5 && strncasecmp(name + size - 5, ".gguf", 5) == 0) size -= 5;
    if (size > 15 && name[size - 15] == '-' && memcmp(name + size - 9, "-of-", 4) == 0) size -= 15;
    return kh_buf_format(out, "%.*s-%s.gguf", (int)stem_of(name, size), name, type);
}

static int progress(void *context, const char *stage, size_t done, size_t all)
{
    cli_progress(context, stage, done, all);
    return cli_interrupted();
}

static kh_status print_json(const char *output, const char *type, const kh_convert_result *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->type_count && list; i++)
        KH_TRY(cli_json_add(list, json_pack("{s:s, s:I, s:I}", "type", r->types[i].name, "tensors",
                                            (json_int_t)r->types[i].tensors, "bytes",
                                            (json_int_t)r->types[i].bytes)));
    return cli_json_print(
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "file",
                  output, "type", type, "parameters", (json_int_t)r->parameters, "bytes_in",
                  (json_int_t)r->bytes_in, "bytes_out", (json_int_t)r->bytes_out, "bits_per_weight",
                  wire_real(8 * (double)r->bytes_out / (double)r->parameters), "tensors",
                  (json_int_t)r->tensors, "copied", (json_int_t)r->copied, "requantised",
                  (json_int_t)r->requantised, "unfit", (json_int_t)r->unfit, "merged",
                  (json_int_t)r->merged, "types", list, "seconds", wire_real(r->seconds)));
}

static void print_text(const char *output, const kh_convert_result *r)
{
    char bytes[32];
    cli_out("%s: %s, %.2f bits a weight (", output, cli_bytes(bytes, sizeof bytes, r->bytes_out),
            8 * (double)r->bytes_out / (double)r->parameters);
    for (size_t i = 0; i < r->type_count; i++)
        cli_out("%s%zu %s", i ? ", " : "", r->types[i].tensors, r->types[i].name);
    cli_out(")\n");
    if (r->merged) cli_note("adapters were merged into %zu tensors", r->merged);
    if (r->unfit)
        cli_note("%zu matrices have rows that the blocks of their type do not divide; they got "
                 "another type",
                 r->unfit);
    if (r->heads)
        cli_note(
            "%zu tensors are an encoder's heads, which llama.cpp refuses: --no-heads leaves them "
            "out",
            r->heads);
    if (r->requantised)
        cli_note("%zu tensors were quantised before; their errors add up, so convert from F16, "
                 "BF16 or F32 where there is such a file",
                 r->requantised);
}

static kh_status convert(const cli_args *args, const char *model, const char *name,
                         const char *output)
{
    kh_buf made = {0};
    kh_convert_result result;
    kh_convert_options options = {.type = types[args->type],
                                  .pure = args->pure,
                                  .overwrite = args->force,
                                  .no_tokenizer = args->no_tokenizer,
                                  .no_heads = args->no_heads,
                                  .only_lora = args->only_lora,
                                  .threads = (int)args->threads,
                                  .progress = progress};
    cli_loras loras = {0};
    if (args->only_lora && !output)
        KH_FAIL(KH_ERR_ARGUMENT,
                "--only-lora: name what to write, -o FILE.gguf or -o FOLDER/ for PEFT's form");
    if (!output) KH_TRY(output_name(&made, name, options.type));
    if (!output) output = made.data;
    kh_status status = cli_loras_open(&loras, args);
    options.loras = loras.items;
    options.lora_count = loras.count;
    cli_signals_await(1);
    if (status == KH_OK) status = kh_convert(model, output, &options, &result);
    cli_signals_await(0);
    cli_progress_end();
    cli_loras_close(&loras);
    if (status == KH_OK && args->json)
        status = print_json(output, args->only_lora ? "F32" : options.type, &result);
    else if (status == KH_OK)
        print_text(output, &result);
    kh_buf_free(&made);
    return status;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    cli_take_model(args, &words, &count);
    const char *output = args->output ? args->output : count ? words[0] : NULL;
    if (args->hf) {
        kh_hub_model *files = NULL;
        KH_TRY(cli_hub_model(&files, args));
        char name[256]; /* OWNER/NAME:QUANT names the file that is made after NAME */
        snprintf(name, sizeof name, "%.*s", (int)strcspn(args->hf, ":"), args->hf);
        kh_status status = convert(args, files->path, name, output);
        kh_hub_model_free(files);
        return status;
    }
    if (!args->model)
        KH_FAIL(KH_ERR_ARGUMENT, "no model was named: type keyhole convert -m FILE.gguf --type %s",
                types[args->type]);
    return convert(args, args->model, args->model, output);
}

static const kh_opt output_options[] = {
    CLI_CHOICE(type, "--type --outtype", "TYPE",
               "what most matrices become; Q4_K is Q4_K_M, Q3_K and Q5_K likewise", "F16", types,
               NULL),
    CLI_TEXT(
        output, "-o --output", "FILE",
        "the file to write (default: the model's name with the type, in this folder), or NAME/ "
        "for a Hugging Face folder",
        NULL),
    CLI_FLAG(force, "-f --force", "replaces a file that exists"),
    CLI_FLAG(pure, "--pure", "every matrix in that type, none with more bits"),
    CLI_FLAG(no_tokenizer, "--no-tokenizer", "leaves out the tokenizer of a Hugging Face folder"),
    CLI_FLAG(only_lora, "--only-lora",
             "writes the adapter of --lora instead of merging it: a GGUF file, or a PEFT folder"),
    CLI_FLAG(
        no_heads, "--no-heads",
        "leaves out an encoder's heads for masked tokens and answers, which llama.cpp refuses"),
    CLI_END};
static const kh_opt compute[] = {CLI_INT(threads, "-t --threads", "N",
                                         "threads; 0 is all processors", "0", 0, 1024,
                                         "LLAMA_ARG_THREADS"),
                                 CLI_END};
static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Result", output_options},
                                      {"Computation", compute},
                                      {"Output", cli_options_output},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_convert = {
    .group = "Files",
    .command =
        {.name = "convert",
         .does = "a model as a GGUF file of another type",
         .words = "[MODEL] [FILE]",
         .most_words = 2,
         .about =
             "Writes a model, a GGUF file or a Hugging Face folder, as a GGUF file with its "
             "weights in any type: dense (F32, F16, BF16) "
             "or quantised. The mixes are those that llama.cpp's users know: the output "
             "head, the values of attention and ffn_down get more bits; norms and biases "
             "stay F32; rows that a type's blocks do not divide get a type that fits.\n\n"
             "The file appears under its name when it is whole, and llama.cpp reads it too.\n\n"
             "An output that is a folder, or ends in a slash, becomes a Hugging Face folder: "
             "config.json and model.safetensors in F32, F16 or BF16, and the tokenizer.\n\n"
             "Adapters of --lora are merged: their products are added to the weights in f32 before "
             "these get their type. With --only-lora the adapter itself is written in the other "
             "form, for the model that is named.",
         .example = "keyhole convert -m model-F16.gguf --type Q4_K_M -o model-Q4_K_M.gguf\n"
                    "keyhole convert SmolLM2-135M-Instruct/ --type Q8_0\n"
                    "keyhole convert model.gguf --type BF16 -o folder/\n"
                    "keyhole convert model.gguf --lora adapter/ --type Q8_0 -o merged.gguf\n"
                    "keyhole convert model.gguf --lora adapter/ --only-lora -o adapter.gguf",
         .groups = groups},
    .run = run,
};

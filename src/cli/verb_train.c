/* keyhole train and keyhole tune: one loop, two beginnings: a description, or a model.
 *
 * Their tables differ in what the weights start from and in a few initial values; everything else is shared, and a
 * configuration file of one is read by the other where it names no other beginning. */
#include "cli/training.h"

#include "base/fail.h"

static const char *const recomputes[] = {"block", "none", NULL};
static const char *const grads[] = {"full", "layer-causal", NULL};
static const char *const packs[] = {"full", "none", NULL};
static const char *const orders[] = {"shuffled", "given", NULL};

static kh_train_options options_of(const cli_args *a)
{
    return (kh_train_options){.arch = a->arch,
                              .tokenizer = a->tokenizer,
                              .paths = a->data.items,
                              .path_count = a->data.count,
                              .valid_paths = a->valid.items,
                              .valid_path_count = a->valid.count,
                              .task = a->task,
                              .valid = a->valid_share,
                              .length = (size_t)a->length,
                              .batch = (size_t)a->sequences,
                              .accumulate = (int)a->accumulate,
                              .pack = a->pack,
                              .documents = cli_documents(a),
                              .in_order = a->order,
                              .attn = a->attn,
                              .ff = a->ff,
                              .keep_records = a->recompute == 1,
                              .layer_causal = a->grad,
                              .distill = a->distill,
                              .teacher = a->teacher,
                              .attn_dropout = a->attn_dropout,
                              .threads = (int)a->threads,
                              .optimizer = a->optimizer,
                              .schedule = a->schedule,
                              .rate = a->rate,
                              .steps = (uint64_t)a->steps,
                              .train = a->train,
                              .lora_rank = (size_t)a->lora_rank,
                              .lora_alpha = a->lora_alpha,
                              .lora_targets = a->lora_targets,
                              .groups = a->groups.items,
                              .group_count = a->groups.count,
                              .seed = (uint64_t)a->seed,
                              .folder = a->output,
                              .keep = (int)a->keep,
                              .resume = a->resume};
}

static kh_status train(const cli_args *args, const kh_model *model, const char *lora,
                       const kh_opt_command *command)
{
    kh_train_options options = options_of(args);
    kh_trainer *trainer = NULL;
    options.model = model;
    options.lora_from = lora;
    if (!args->output)
        KH_FAIL(KH_ERR_ARGUMENT, "-o FOLDER names where the run is kept: checkpoints, metrics, "
                                 "the model at its end");
    if (!args->data.count && !args->task)
        KH_FAIL(KH_ERR_ARGUMENT, "--data names what is learned from (text, .jsonl, .khtok), or "
                                 "--task a generated task, as mqar:L=64,pairs=4");
    KH_TRY(kh_trainer_open(&trainer, &options));
    kh_status status = cli_train_run(trainer, args, command);
    kh_trainer_close(trainer);
    return status;
}

static kh_status run_train(cli_args *args, const char **words, size_t count)
{
    const kh_opt_command *command = &cli_verb_train.command;
    (void)words;
    (void)count;
    KH_TRY(cli_config_apply(args, command));
    cli_quiet = args->quiet;
    if (!args->arch)
        KH_FAIL(KH_ERR_ARGUMENT, "--arch describes the model, as llama:layers=4,width=128,heads=4 "
                                 "(keyhole tune starts from a model that is there)");
    return train(args, NULL, NULL, command);
}

static kh_status run_tune(cli_args *args, const char **words, size_t count)
{
    const kh_opt_command *command = &cli_verb_tune.command;
    KH_TRY(cli_config_apply(args, command));
    cli_quiet = args->quiet;
    cli_take_model(args, &words, &count);
    kh_model *model = NULL;
    cli_loras loras;
    cli_args plain = *args; /* the adapter is trained, not run beside what is */
    plain.loras.count = 0;
    kh_status status = cli_loras_open(&loras, args);
    if (status == KH_OK && (loras.count > 1 || (loras.count == 1 && loras.items[0].strength != 1)))
        status = kh_fail(KH_ERR_ARGUMENT, "one adapter is trained on, as strong as it is");
    if (status == KH_OK) status = cli_model_open(&model, &plain, 0);
    if (status == KH_OK)
        status = train(args, model, loras.count ? loras.items[0].path : NULL, command);
    kh_model_close(model);
    cli_loras_close(&loras);
    return status;
}

/* ---- options */

static const kh_opt begin[] = {
    CLI_TEXT(arch, "--arch", "SPEC",
             "the model: an architecture and its numbers, as "
             "llama:layers=4,width=128,heads=4; others: key_heads, ff, context, vocabulary, init "
             "(docs/training.md)",
             NULL),
    CLI_TEXT(tokenizer, "--tokenizer", "MODEL",
             "whose tokenizer it has: a model, or a folder that keyhole tokenizer train wrote; a "
             "task needs none",
             NULL),
    CLI_END};

static const kh_opt data[] = {
    CLI_TEXTS(data, "--data", "FILE",
              "text, .jsonl (text; prompt and completion; messages) or .khtok, or a folder of "
              "these; each use adds one"),
    CLI_TEXTS(valid, "--valid", "FILE", "held out data; each use adds one"),
    CLI_REAL(valid_share, "--valid-share", "SHARE", "share of the documents that is held out", "0",
             0, 0.9),
    CLI_TEXT(task, "--task", "SPEC", "a generated task, as mqar:L=64,pairs=4 (docs/tasks.md)",
             NULL),
    CLI_INT(length, "-L --length", "N", "most tokens of a sequence; 0: the context, at most 1024",
            "0", 0, CLI_MOST_CONTEXT, NULL),
    CLI_INT(sequences, "-b --batch-size", "N", "sequences of a batch", "1", 1, 65536, NULL),
    CLI_INT(accumulate, "--accumulate", "N", "batches whose gradients make one step", "1", 1, 65536,
            NULL),
    CLI_CHOICE(pack, "--pack", "HOW",
               "full: sequences are filled with documents, which do not see each other; none: a "
               "document each",
               "full", packs, NULL),
    CLI_CHOICE(order, "--order", "HOW", "documents shuffled in every epoch, or as given",
               "shuffled", orders, NULL),
    CLI_END};

static const kh_opt pass[] = {
    CLI_TEXT(attn, "--attn", "SPEC",
             "attention, as keyhole run takes it: full (the default), topk:k=64, per layer; k may "
             "move: topk:k=16..128/1000",
             NULL),
    CLI_TEXT(ff, "--ff", "SPEC", "feed-forward layers: dense (the default), topk:k=512", NULL),
    CLI_CHOICE(recompute, "--recompute", "WHAT",
               "block: every block runs again before its backward pass, which takes a third more "
               "time and the memory of one block; none",
               "block", recomputes, NULL),
    CLI_CHOICE(grad, "--grad", "HOW",
               "full, or layer-causal: a loss for every layer, whose gradient ends at its input",
               "full", grads, NULL),
    CLI_TEXT(distill, "--distill", "SPEC",
             "losses against a teacher: kl=1,temperature=2,map=0.1,relation=0.1; ce=0 leaves the "
             "data's own out",
             NULL),
    CLI_TEXT(teacher, "--teacher", "MODEL",
             "the teacher (default: the model itself with full attention)", NULL),
    CLI_REAL(attn_dropout, "--attn-dropout", "RATE", "dropout of attention's weights", "0", 0,
             0.95),
    CLI_INT(threads, "-t --threads", "N", "threads; 0 is all processors; no bit depends on it", "0",
            0, 1024, "LLAMA_ARG_THREADS"),
    CLI_END};

static const kh_opt steps[] = {
    CLI_INT(steps, "-n --steps", "N", "steps of the run", "1000", 1, 1e12, NULL),
    CLI_REAL(rate, "--lr", "RATE",
             "learning rate, the highest of the schedule; 0: 1e-3, tuning 2e-5, an adapter 2e-4",
             "0", 0, 1e3),
    CLI_TEXT(schedule, "--schedule", "SPEC",
             "of the learning rate: cosine:warmup=100,floor=0.1; linear, constant, rsqrt", NULL),
    CLI_TEXT(optimizer, "--optimizer", "SPEC",
             "adamw (the default) or sgd and its numbers, as adamw:decay=0.01,clip=1; others: "
             "beta1, beta2, eps; sgd:momentum=0.9; moments=bf16 halves what they take",
             NULL),
    CLI_TEXT(train, "--train", "PATTERN,...", "trains tensors of these names and no others", NULL),
    CLI_TEXTS(groups, "--group", "RULE",
              "PATTERN,...:rate=0.1,decay=0 for tensors of these names; later rules win"),
    CLI_INT(seed, "-s --seed", "N", "of everything random", "0", 0, 9e18, NULL),
    CLI_END};

static const kh_opt output[] = {
    CLI_TEXT(output, "-o --output", "FOLDER", "the run: checkpoints, metrics.jsonl, the model",
             NULL),
    CLI_FLAG(resume, "--resume", "goes on from the newest checkpoint, where there is one"),
    CLI_INT(save_every, "--save-every", "N", "steps between checkpoints; one is written at the end",
            "100", 1, 1e12, NULL),
    CLI_INT(keep, "--keep", "N", "checkpoints that stay", "2", 1, 1000, NULL),
    CLI_INT(eval_every, "--eval-every", "N",
            "steps between evaluations; 0: what --valid and --valid-share hold out is looked at "
            "first and last",
            "0", 0, 1e12, NULL),
    CLI_INT(eval_batches, "--eval-batches", "N", "most batches of an evaluation; 0: all", "0", 0,
            1e9, NULL),
    CLI_REAL(target, "--stop-at", "ACCURACY",
             "ends the run when an evaluation reaches it (--eval-every); 0: never", "0", 0, 1),
    CLI_INT(log_every, "--log-every", "N", "steps between lines of metrics.jsonl", "10", 1, 1e9,
            NULL),
    CLI_TEXT(save, "--save", "FILE",
             "the model at the end: a GGUF file, or a folder with a / behind", NULL),
    CLI_TEXT(out_type, "--type", "TYPE",
             "of the model at the end: BF16 (the default), F32, F16, "
             "Q8_0 ...",
             NULL),
    CLI_TEXT(report, "--report", "FILE",
             "the page of curves, written when the run ends or is stopped; without it report.html "
             "in the run's folder",
             NULL),
    CLI_TEXT(config, "--config", "FILE", "options as a JSON object; the command line wins", NULL),
    CLI_FLAG(json, "--json", "prints {steps, model, attn, parameters, evaluation}"),
    CLI_FLAG(verbose, "-v --verbose", "prints the resolved configuration"),
    CLI_FLAG(quiet, "-q --quiet", "nothing on standard error"),
    CLI_END};

static const kh_opt_group train_groups[] = {
    {"Model", begin}, {"Data", data},   {"Documents", cli_options_documents},
    {"Pass", pass},   {"Steps", steps}, {"Output", output},
    CLI_NO_GROUP};
static const kh_opt adapter[] = {
    CLI_INT(lora_rank, "--lora-rank", "R",
            "trains a new adapter of this rank, or with --lora FILE one that is there; the weights "
            "stay as they are, in their types",
            "0", 0, 1024, NULL),
    CLI_REAL(lora_alpha, "--lora-alpha", "A", "its alpha; 0 is twice the rank", "0", 0, 1e6),
    CLI_TEXT(lora_targets, "--lora-targets", "PATTERN,...",
             "tensors that get one (default: queries and values of attention)", NULL),
    CLI_END};

static const kh_opt_group tune_groups[] = {{"Model", cli_options_model},
                                           {"Adapter", adapter},
                                           {"Data", data},
                                           {"Documents", cli_options_documents},
                                           {"Pass", pass},
                                           {"Steps", steps},
                                           {"Output", output},
                                           CLI_NO_GROUP};

const cli_verb cli_verb_train = {
    .group = "Train",
    .command = {.name = "train",
                .does = "trains a model from scratch",
                .words = "",
                .most_words = 0,
                .about =
                    "Trains a model from nothing on texts or on a generated task. The run's folder "
                    "holds its configuration, metrics.jsonl, checkpoints and, at the end, the "
                    "model. Ctrl-C finishes the step, saves and leaves; --resume goes on, to the "
                    "bit as if nothing had happened.",
                .example = "keyhole train --config run.json -o runs/novel\n"
                           "keyhole train --arch gpt2:layers=2,width=64 --task mqar -o runs/mqar",
                .groups = train_groups},
    .run = run_train,
};

const cli_verb cli_verb_tune = {
    .group = "Train",
    .command = {.name = "tune",
                .does = "fine-tunes a model",
                .words = "[MODEL]",
                .most_words = 1,
                .about =
                    "Trains a model further, all weights or those that --train names, with any "
                    "attention: a model learns to live with top-k. The result is written in "
                    "BF16, as a GGUF file or a folder.",
                .example =
                    "keyhole tune -m smol.gguf --data novel.txt --attn topk:k=32 -o runs/k32",
                .groups = tune_groups},
    .run = run_tune,
};

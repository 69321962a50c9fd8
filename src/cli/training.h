/* cli/training.h: what the verbs train and tune share: configuration files, and the run itself. */
#ifndef KH_CLI_TRAINING_H
#define KH_CLI_TRAINING_H

#include "cli/cli.h"

/* The options of args->argv with those of --config FILE.json in front of them, so that the command line wins.
 * Names are the options' without dashes. KH_ERR_ARGUMENT names the file and what is unknown or wrong in it. */
kh_status cli_config_apply(cli_args *args, const kh_opt_command *command);
/* Every option of a command with its value, as such a file holds it; without those that are not set. */
json_t *cli_config_json(const kh_opt_command *command, const cli_args *args);

/* Appends what the folder of a run holds to the list `runs`. KH_ERR_NOT_FOUND: no run, or nothing logged yet;
 * KH_ERR_FORMAT names the file and the line. */
kh_status cli_train_report_add(json_t *runs, const char *folder);
/* Writes the page over `runs` to path, whole or not at all; "-": standard output. */
kh_status cli_train_report_write(const char *path, json_t *runs, const cli_args *args);
/* The page of the run that ends with `status`: --report, or report.html in its folder. Returns `status` if that is a
 * failure, with its sentence as it was. */
kh_status cli_train_report(const cli_args *args, kh_status status);

/* Steps, evaluations, checkpoints, metrics and the model at the end. `command` for the resolved configuration. */
kh_status cli_train_run(kh_trainer *trainer, const cli_args *args, const kh_opt_command *command);

#endif

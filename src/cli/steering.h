/* cli/steering.h: --control-vector and --control-vector-layer-range. */
#ifndef KH_CLI_STEERING_H
#define KH_CLI_STEERING_H

#include "cli/cli.h"
#include "wire/vectors.h"

/* The files that the options name, with their scales and layers; free in any case. */
kh_status cli_vectors_open(wire_vectors *out, const kh_model *model, const cli_args *args);
/* Their sum beside a session: *out is NULL where there are none. Close it behind the session. */
kh_status cli_steering_attach(kh_steering **out, kh_session *session, const kh_model *model,
                              const cli_args *args);
/* "FILE:SCALE,FILE" of the options, one after the other: the name without the scale. */
typedef struct cli_vector_file {
    char *path; /* free with kh_free */
    double scale;
    int first, last;
} cli_vector_file;
kh_status cli_vector_files(cli_vector_file **out, size_t *count, const cli_args *args);
void cli_vector_files_free(cli_vector_file *files, size_t count);

#endif

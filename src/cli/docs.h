/* cli/docs.h: pages about the program as a whole. */
#ifndef KH_CLI_DOCS_H
#define KH_CLI_DOCS_H

#include "base/buf.h"

#include <keyhole/status.h>
#include <stddef.h>

/* The verbs by group, one a line. */
kh_status cli_verb_list(kh_buf *out, size_t width);
/* The page of keyhole --help. */
kh_status cli_overview(kh_buf *out, size_t width);
/* The manual page keyhole(1). */
kh_status cli_man(kh_buf *out, const char *version);

#endif

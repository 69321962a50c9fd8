/* cli/pages.h: the pages of web/, as cmake/pages.cmake puts them into the program, and how they get results. */
#ifndef KH_CLI_PAGES_H
#define KH_CLI_PAGES_H

#include "cli/cli.h"

/* Each [its size], a zero byte behind. */
extern const unsigned char cli_page_report[], cli_page_training[];
extern const size_t cli_page_report_size, cli_page_training_size;

/* Writes a page over `runs` (a list) to path, whole or not at all; "-": standard output. Says so on standard error. */
kh_status cli_page_write(const char *path, const unsigned char *page, size_t size, json_t *runs,
                         const cli_args *args);
/* Whether --report can be written, in front of the work; NULL: nothing to check. */
kh_status cli_page_check(const char *path);

#endif

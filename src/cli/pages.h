/* cli/pages.h: the pages of web/, as cmake/pages.cmake puts them into the program. */
#ifndef KH_CLI_PAGES_H
#define KH_CLI_PAGES_H

#include <stddef.h>

extern const unsigned char cli_page_report[]; /* [cli_page_report_size], a zero byte behind */
extern const size_t cli_page_report_size;

#endif

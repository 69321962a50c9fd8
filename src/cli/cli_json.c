/* JSON on standard output. Its values are those of wire/; a NULL among them means "no memory", and is
 * reported where the document is printed. */
#include "cli/cli.h"

#include "base/fail.h"

static int put(const char *bytes, size_t n, void *context)
{
    (void)context;
    cli_out_bytes(bytes, n);
    return 0;
}

kh_status cli_json_print(json_t *value)
{
    if (!value) KH_FAIL(KH_ERR_MEMORY, "no memory for the JSON output");
    int failed = json_dump_callback(value, put, NULL, WIRE_FORM);
    json_decref(value);
    if (failed) KH_FAIL(KH_ERR_MEMORY, "no memory for the JSON output");
    cli_out_bytes("\n", 1);
    return KH_OK;
}

kh_status cli_json_add(json_t *list, json_t *one)
{
    if (json_array_append_new(list, one) != 0) KH_FAIL(KH_ERR_MEMORY, "no memory for the results");
    return KH_OK;
}

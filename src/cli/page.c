/* Pages of web/ with results in them: HTML files that load nothing.
 *
 *   page   web/dist/NAME.html up to "@data@" | the results as JSON | the rest
 *   JSON   {version, commit, command, runs: [...]}
 *
 * The pages are built from web/ and part of the program; they arrange, compare and draw.
 *
 * The JSON stands inside a script element, which "</script" or "<!--" in a text would end or upset. JSON
 * has "<" inside strings only, and there \u003c means the same: every "<" is written so. */
#include "cli/pages.h"

#include "base/fail.h"
#include "base/file.h"

#include <string.h>

static const char mark[] = "\"@data@\"";

typedef struct sheet {
    kh_outfile *file; /* NULL: standard output */
    kh_status status;
} sheet;

static kh_status put(sheet *out, const void *bytes, size_t n)
{
    if (out->file) return kh_outfile_write(out->file, bytes, n);
    cli_out_bytes(bytes, n);
    return KH_OK;
}

static int put_json(const char *text, size_t n, void *context)
{
    sheet *out = context;
    for (size_t i = 0, k; i < n && out->status == KH_OK; i = k) {
        for (k = i; k < n && text[k] != '<';) k++;
        out->status = put(out, text + i, k - i);
        if (k == n || out->status != KH_OK) continue;
        out->status = put(out, "\\u003c", 6);
        k++;
    }
    return out->status == KH_OK ? 0 : -1;
}

static kh_status put_page(sheet *out, const char *page, size_t size, const json_t *data)
{
    const char *hole = strstr(page, mark);
    if (!hole) KH_FAIL(KH_ERR_UNSUPPORTED, "the page of this build has no place for results");
    const char *rest = hole + sizeof mark - 1;
    KH_TRY(put(out, page, (size_t)(hole - page)));
    int failed = json_dump_callback(data, put_json, out,
                                    JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(12));
    KH_TRY(out->status);
    if (failed) KH_FAIL(KH_ERR_MEMORY, "no memory for the results of the page");
    return put(out, rest, size - (size_t)(rest - page));
}

kh_status cli_page_write(const char *path, const unsigned char *page, size_t size, json_t *runs,
                         const cli_args *args)
{
    sheet out = {0};
    kh_buf command = {0};
    kh_status status = cli_command(&command, args);
    json_t *data = NULL;
    if (status == KH_OK &&
        !(data = json_pack("{s:s, s:s, s:o, s:O}", "version", kh_version(), "commit", kh_commit(),
                           "command", wire_text(command.data, command.size), "runs", runs)))
        status = kh_fail(KH_ERR_MEMORY, "no memory for the results of the page");
    if (status == KH_OK && strcmp(path, "-") != 0) status = kh_outfile_open(&out.file, path);
    if (status == KH_OK) status = put_page(&out, (const char *)page, size, data);
    if (status == KH_OK && out.file) {
        status = kh_outfile_commit(out.file);
        if (status == KH_OK && !cli_quiet) cli_say("wrote %s", path);
    } else {
        kh_outfile_abandon(out.file);
    }
    json_decref(data);
    kh_buf_free(&command);
    return status;
}

kh_status cli_page_check(const char *path)
{
    kh_outfile *file = NULL;
    if (!path) return KH_OK;
    if (strcmp(path, "-") == 0)
        KH_FAIL(KH_ERR_ARGUMENT, "--report names a file: standard output is for the rows");
    KH_TRY(kh_outfile_open(&file, path));
    kh_outfile_abandon(file);
    return KH_OK;
}

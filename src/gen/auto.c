/* The automatic attention setting of a file.
 *
 * kh_calibrate measures a file and stores, by the file's identity, the setting with the fastest prompt
 * among those within 2 % of full perplexity:
 *
 *     ${XDG_DATA_HOME:-~/.local/share}/keyhole/auto/IDENTITY      one line: the setting
 *
 * The settings of files that come up in the documentation are built in (auto_settings.inc, made by
 * `keyhole calibrate`). A file without either is run with full attention, and the caller is told so. */
#include "gen/auto.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "base/file.h"
#include "model/network.h"

#include <errno.h>
#include <keyhole/eval.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct known {
    const char *identity, *attn;
} known;

static const known built_in[] = {
#include "gen/auto_settings.inc"
    {NULL, NULL}};

static kh_status folder(kh_buf *out)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (data && data[0] == '/') return kh_buf_format(out, "%s/keyhole/auto", data);
    if (!home || !home[0]) KH_FAIL(KH_ERR_NOT_FOUND, "neither XDG_DATA_HOME nor HOME is set");
    return kh_buf_format(out, "%s/.local/share/keyhole/auto", home);
}

static kh_status make_folders(char *path)
{
    for (char *slash = path; slash; slash = strchr(slash + 1, '/')) {
        char *end = strchr(slash + 1, '/');
        if (end) *end = 0;
        int bad = mkdir(path, 0777) != 0 && errno != EEXIST;
        if (bad) kh_fail(KH_ERR_IO, "%s: cannot be made: %s", path, strerror(errno));
        if (end) *end = '/';
        if (bad) return KH_ERR_IO;
    }
    return KH_OK;
}

static kh_status read_stored(const char *identity, char *attn, size_t size)
{
    kh_buf path = {0};
    char *text = NULL;
    size_t n = 0;
    kh_status status = folder(&path);
    if (status == KH_OK) status = kh_buf_format(&path, "/%s", identity);
    if (status == KH_OK) status = kh_file_read(&text, &n, path.data, 4096);
    if (status == KH_OK) {
        n = strcspn(text, "\n");
        if (n == 0 || n >= size) status = kh_fail(KH_ERR_FORMAT, "%s: not a setting", path.data);
    }
    if (status == KH_OK) {
        memcpy(attn, text, n);
        attn[n] = 0;
    }
    kh_free(text);
    kh_buf_free(&path);
    return status;
}

kh_status kh_auto_find(const char *identity, char *attn, size_t size, const char **source)
{
    const char *unused;
    if (!source) source = &unused;
    if (size < 256) KH_FAIL(KH_ERR_ARGUMENT, "a setting needs 256 bytes of room");
    *source = "calibrated on this machine";
    if (read_stored(identity, attn, size) == KH_OK) return KH_OK;
    const char *setting = "full";
    *source = "not calibrated: full attention";
    for (const known *k = built_in; k->identity; k++)
        if (strcmp(k->identity, identity) == 0) {
            setting = k->attn;
            *source = "built in";
        }
    memcpy(attn, setting, strlen(setting) + 1);
    return KH_OK;
}

kh_status kh_auto_store(const char *identity, const char *attn)
{
    kh_buf path = {0}, line = {0};
    kh_status status = folder(&path);
    if (status == KH_OK) status = make_folders(path.data);
    if (status == KH_OK) status = kh_buf_format(&path, "/%s", identity);
    if (status == KH_OK) status = kh_buf_format(&line, "%s\n", attn);
    if (status == KH_OK) status = kh_file_write(path.data, line.data, line.size);
    kh_buf_free(&line);
    kh_buf_free(&path);
    return status;
}

kh_status kh_auto_setting(const kh_model *model, char *attn, size_t size, const char **source)
{
    return kh_auto_find(model->identity, attn, size, source);
}

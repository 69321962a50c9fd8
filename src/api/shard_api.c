/* Texts as a shard of tokens: the sources of training, read once from the first document to the last.
 *
 * Nothing is kept in memory but a document: sources are told to keep no tokens, and to cut long texts
 * as training on them would. The result is counted from the shard that was written. */
#include <keyhole/shard.h>

#include "base/fail.h"
#include "base/file.h"
#include "model/network.h"
#include "train/data.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static kh_status count_shard(kh_shard_result *result, const char *path, const kh_model *model)
{
    kh_source *source;
    kh_source_info info;
    kh_map map;
    kh_source_options options = {.format = KH_SOURCE_SHARD};
    KH_TRY(kh_map_open(&map, path));
    result->bytes = map.size;
    kh_map_close(&map);
    KH_TRY(kh_source_open(&source, &path, 1, model->tokenizer, &options));
    kh_source_get_info(source, &info);
    result->documents = info.documents;
    result->empty = info.skipped;
    result->tokens = info.rows + info.documents - info.skipped;
    kh_source_close(source);
    return KH_OK;
}

kh_status kh_shard_make(const kh_model *model, const char *output, const char *const *paths,
                        size_t count, const kh_shard_options *options, kh_shard_result *result)
{
    static const kh_shard_options defaults = {0};
    kh_shard_result ignored;
    kh_source *source;
    kh_source_info info;
    if (!options) options = &defaults;
    if (!result) result = &ignored;
    *result = (kh_shard_result){0};
    if (!options->overwrite && (access(output, F_OK) == 0 || errno != ENOENT))
        KH_FAIL(KH_ERR_STATE, "%s: is there already", output);
    kh_source_options o = kh_source_options_from(&options->documents);
    o.store = 1;
    o.piece = (size_t)64 << 20;
    KH_TRY(kh_source_open(&source, paths, count, model->tokenizer, &o));
    kh_source_get_info(source, &info);
    kh_status status = kh_shard_write(output, source, model->tokenizer);
    kh_source_close(source);
    KH_TRY(status);
    result->files = info.files;
    return count_shard(result, output, model);
}

/* Conversations of run, chat and ask: the options that say how they become text.
 *
 * A known format by name (--chat-template), a Jinja template in a file (--chat-template-file), or the
 * model's own template. A template may refuse a conversation, say one with a system message; then its
 * own sentence is shown, and that a known format may take it. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"

#include <string.h>

const char *cli_chat_format(const cli_args *args, const kh_model *model)
{
    if (args->chat_template) return args->chat_template;
    return args->chat_template_file ? args->chat_template_file : kh_model_chat_format(model);
}

kh_status cli_chat_ids(const cli_args *args, const kh_model *model, const kh_chat_message *messages,
                       size_t count, int32_t **ids, size_t *n)
{
    enum { LARGEST = 16 << 20 };
    char *template = NULL;
    size_t size = 0;
    kh_status status = KH_OK;
    *ids = NULL;
    *n = 0;
    if (args->chat_template && args->chat_template_file)
        KH_FAIL(KH_ERR_ARGUMENT, "--chat-template and --chat-template-file exclude each other");
    if (args->chat_template_file) {
        status = kh_file_read(&template, &size, args->chat_template_file, LARGEST);
        if (status == KH_OK && (!size || memchr(template, 0, size)))
            status = kh_fail(KH_ERR_FORMAT, "%s: a text is expected", args->chat_template_file);
    }
    kh_chat_options options = {.format = args->chat_template,
                               .template_text = template,
                               .kwargs_json = args->chat_template_kwargs};
    if (status == KH_OK) {
        status = kh_model_chat_with(model, &options, messages, count, ids, n);
        if (status == KH_ERR_ARGUMENT && !args->chat_template)
            kh_fail_context(status, "the chat template does not take this conversation "
                                    "(--chat-template NAME takes a known format instead)");
    }
    kh_free(template);
    return status;
}

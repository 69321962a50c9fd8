/* Shell completion, generated from the verb table and the option tables: keyhole completion SHELL.
 *
 * After `keyhole`, the verbs; after a verb, its options; after an option with choices, those; after
 * an option whose argument is called FILE or MODEL, and for words, files. */
#include "cli/cli.h"

#include "base/fail.h"

#include <string.h>

static int takes_file(const kh_opt *option)
{
    return option->argument &&
           (strcmp(option->argument, "FILE") == 0 || strcmp(option->argument, "MODEL") == 0);
}

/* Calls `each` for every option of a verb. */
static kh_status walk(kh_buf *out, const cli_verb *verb,
                      kh_status (*each)(kh_buf *out, const cli_verb *verb, const kh_opt *option))
{
    for (const kh_opt_group *group = verb->command.groups; group->title; group++)
        for (const kh_opt *option = group->options; option->names; option++)
            KH_TRY(each(out, verb, option));
    return KH_OK;
}

/* ---- bash ---- */

static kh_status bash_names(kh_buf *out, const cli_verb *verb, const kh_opt *option)
{
    (void)verb;
    return kh_buf_format(out, "%s ", option->names);
}

/* One case of the option before the cursor: -ctk|--cache-type-k) ... */
static kh_status bash_value(kh_buf *out, const cli_verb *verb, const kh_opt *option)
{
    (void)verb;
    if (!option->argument) return KH_OK;
    KH_TRY(kh_buf_text(out, "            "));
    const char *at = option->names, *name;
    for (size_t n, i = 0; (n = kh_opt_spelling(&at, &name)) > 0; i++)
        KH_TRY(kh_buf_format(out, "%s%.*s", i ? "|" : "", (int)n, name));
    if (option->choices) {
        KH_TRY(kh_buf_text(out, ") COMPREPLY=($(compgen -W \""));
        for (int i = 0; option->choices[i]; i++)
            KH_TRY(kh_buf_format(out, "%s%s", i ? " " : "", option->choices[i]));
        return kh_buf_text(out, "\" -- \"$cur\")); return ;;\n");
    }
    return kh_buf_text(out, takes_file(option)
                                ? ") COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
                                : ") return ;;\n");
}

static kh_status bash_verb(kh_buf *out, const cli_verb *verb)
{
    KH_TRY(kh_buf_format(out, "    \"%s\")\n        case $prev in\n", verb->command.name));
    KH_TRY(walk(out, verb, bash_value));
    KH_TRY(kh_buf_text(out, "        esac\n        options=\""));
    KH_TRY(walk(out, verb, bash_names));
    return kh_buf_text(out, "--help\" ;;\n");
}

/* Verbs of two words share their first ("bench recall", "bench ff"), which may be a verb itself. */
static size_t first_size(size_t verb)
{
    return strcspn(cli_verbs[verb]->command.name, " ");
}

static int is_first(size_t verb, const char *first, size_t size)
{
    return first_size(verb) == size && !memcmp(cli_verbs[verb]->command.name, first, size);
}

/* Whether no verb before this one begins with the same word. */
static int begins_group(size_t verb)
{
    for (size_t i = 0; i < verb; i++)
        if (is_first(i, cli_verbs[verb]->command.name, first_size(verb))) return 0;
    return 1;
}

/* The second words behind a first one, a blank behind each. */
static kh_status second_words(kh_buf *out, const char *first, size_t size)
{
    for (size_t i = 0; cli_verbs[i]; i++) {
        const char *space = strchr(cli_verbs[i]->command.name, ' ');
        if (space && is_first(i, first, size)) KH_TRY(kh_buf_format(out, "%s ", space + 1));
    }
    return KH_OK;
}

/* Calls `each` for every first word that has second ones, once. */
static kh_status walk_groups(kh_buf *out,
                             kh_status (*each)(kh_buf *out, const char *first, int size))
{
    for (size_t i = 0; cli_verbs[i]; i++) {
        const char *name = cli_verbs[i]->command.name;
        int has_second = 0;
        for (size_t k = 0; cli_verbs[k]; k++)
            has_second |= strchr(cli_verbs[k]->command.name, ' ') &&
                          is_first(k, name, first_size(i));
        if (has_second && begins_group(i)) KH_TRY(each(out, name, (int)first_size(i)));
    }
    return KH_OK;
}

/* At the second word of `bench`, what may follow it. */
static kh_status bash_group(kh_buf *out, const char *first, int size)
{
    KH_TRY(kh_buf_format(out, "    [ \"$verb $COMP_CWORD\" = \"%.*s 2\" ] && options=\"", size,
                         first));
    KH_TRY(second_words(out, first, (size_t)size));
    return kh_buf_text(out, "$options\"\n");
}

static kh_status bash_firsts(kh_buf *out)
{
    for (size_t i = 0; cli_verbs[i]; i++)
        if (begins_group(i))
            KH_TRY(kh_buf_format(out, "%.*s ", (int)first_size(i), cli_verbs[i]->command.name));
    return KH_OK;
}

static kh_status bash(kh_buf *out)
{
    KH_TRY(kh_buf_text(out,
                       "# bash completion of keyhole; generated\n"
                       "_keyhole() {\n"
                       "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}"
                       " verb=${COMP_WORDS[1]} options=\n"
                       "    compopt -o filenames 2>/dev/null\n"
                       "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
                       "        COMPREPLY=($(compgen -W \"help --help --version "));
    KH_TRY(bash_firsts(out));
    KH_TRY(kh_buf_text(out, "\" -- \"$cur\") $(compgen -f -X '!*.gguf' -- \"$cur\"))\n"
                            "        return\n    fi\n"
                            "    if [ \"$verb\" = help ]; then verb= options=\""));
    KH_TRY(bash_firsts(out));
    KH_TRY(kh_buf_text(out, "\"; fi\n    case \"$verb ${COMP_WORDS[2]}\" in\n"));
    for (size_t i = 0; cli_verbs[i]; i++)
        if (strchr(cli_verbs[i]->command.name, ' '))
            KH_TRY(kh_buf_format(out, "    \"%s\") verb=\"%s\" ;;\n", cli_verbs[i]->command.name,
                                 cli_verbs[i]->command.name));
    KH_TRY(kh_buf_text(out, "    esac\n    case $verb in\n"));
    for (size_t i = 0; cli_verbs[i]; i++) KH_TRY(bash_verb(out, cli_verbs[i]));
    KH_TRY(kh_buf_text(out, "    esac\n"));
    KH_TRY(walk_groups(out, bash_group));
    return kh_buf_text(out, "    COMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
                            "    case $cur in -*) ;; *) [ \"$verb\" ] && COMPREPLY+=($(compgen -f "
                            "-- \"$cur\")) ;; esac\n"
                            "}\n"
                            "complete -F _keyhole keyhole\n");
}

/* ---- zsh ---- */

/* Text inside single quotes and square brackets of _arguments. */
static kh_status zsh_text(kh_buf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\'')
            KH_TRY(kh_buf_text(out, "'\\''"));
        else if (strchr("[]:\\", *text))
            KH_TRY(kh_buf_format(out, "\\%c", *text));
        else
            KH_TRY(kh_buf_add(out, text, 1));
    }
    return KH_OK;
}

static kh_status zsh_option(kh_buf *out, const cli_verb *verb, const kh_opt *option)
{
    (void)verb;
    const char *at = option->names, *name;
    for (size_t n; (n = kh_opt_spelling(&at, &name)) > 0;) {
        int repeats = option->kind == KH_OPT_TEXTS || option->kind == KH_OPT_INTS;
        KH_TRY(kh_buf_format(out, "            '%s%.*s[", repeats ? "*" : "", (int)n, name));
        KH_TRY(zsh_text(out, option->help));
        KH_TRY(kh_buf_text(out, "]"));
        if (option->argument) {
            KH_TRY(kh_buf_text(out, ":"));
            KH_TRY(zsh_text(out, option->argument));
            KH_TRY(kh_buf_text(out, ":"));
        }
        if (option->choices && option->argument) {
            KH_TRY(kh_buf_text(out, "("));
            for (int i = 0; option->choices[i]; i++)
                KH_TRY(kh_buf_format(out, "%s%s", i ? " " : "", option->choices[i]));
            KH_TRY(kh_buf_text(out, ")"));
        } else if (takes_file(option)) {
            KH_TRY(kh_buf_text(out, "_files"));
        }
        KH_TRY(kh_buf_text(out, "' \\\n"));
    }
    return KH_OK;
}

/* Behind `bench`: its second words, and the options of the verb that both are. */
static kh_status zsh_group(kh_buf *out, const char *first, int size)
{
    KH_TRY(kh_buf_format(out,
                         "    if [[ $verb = %.*s ]]; then\n        local -a seconds\n"
                         "        seconds=(\n",
                         size, first));
    for (size_t i = 0; cli_verbs[i]; i++) {
        const char *space = strchr(cli_verbs[i]->command.name, ' ');
        if (!space || !is_first(i, first, (size_t)size)) continue;
        KH_TRY(kh_buf_format(out, "            '%s:", space + 1));
        KH_TRY(zsh_text(out, cli_verbs[i]->command.does));
        KH_TRY(kh_buf_text(out, "'\n"));
    }
    return kh_buf_format(out,
                         "        )\n        if (( CURRENT == 2 )); then\n"
                         "            _describe second seconds\n"
                         "        elif (( ${seconds[(I)$words[2]:*]} )); then\n"
                         "            verb=\"%.*s $words[2]\"\n            shift words\n"
                         "            (( CURRENT-- ))\n        fi\n    fi\n",
                         size, first);
}

static kh_status zsh(kh_buf *out)
{
    KH_TRY(kh_buf_text(out, "#compdef keyhole\n# zsh completion of keyhole; generated\n"
                            "_keyhole() {\n    local -a verbs\n    verbs=(\n"));
    for (size_t i = 0; cli_verbs[i]; i++) {
        if (!begins_group(i)) continue;
        KH_TRY(
            kh_buf_format(out, "        '%.*s:", (int)first_size(i), cli_verbs[i]->command.name));
        KH_TRY(zsh_text(out, cli_verbs[i]->command.does));
        KH_TRY(kh_buf_text(out, "'\n"));
    }
    KH_TRY(kh_buf_text(out, "        'help:the options of a verb'\n    )\n"
                            "    if (( CURRENT == 2 )); then\n"
                            "        _describe verb verbs\n"
                            "        _files -g '*.gguf'\n        return\n    fi\n"
                            "    local verb=$words[2]\n    shift words\n    (( CURRENT-- ))\n"));
    KH_TRY(walk_groups(out, zsh_group));
    KH_TRY(kh_buf_text(out, "    case $verb in\n"));
    for (size_t i = 0; cli_verbs[i]; i++) {
        KH_TRY(kh_buf_format(out, "    '%s')\n        _arguments -S \\\n",
                             cli_verbs[i]->command.name));
        KH_TRY(walk(out, cli_verbs[i], zsh_option));
        KH_TRY(kh_buf_text(out, "            '--help[help]' '*:file:_files' ;;\n"));
    }
    return kh_buf_text(out, "    help) _describe verb verbs ;;\n    esac\n}\n_keyhole \"$@\"\n");
}

/* ---- fish ---- */

static kh_status fish_text(kh_buf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\'' || *text == '\\') KH_TRY(kh_buf_text(out, "\\"));
        KH_TRY(kh_buf_add(out, text, 1));
    }
    return KH_OK;
}

/* Both words of a verb that has two; of one that is also a second word, that no first one is there. */
static kh_status fish_seen(kh_buf *out, const char *name)
{
    const char *space = strchr(name, ' ');
    if (space)
        return kh_buf_format(out,
                             "__fish_seen_subcommand_from %.*s; and __fish_seen_subcommand_from %s",
                             (int)(space - name), name, space + 1);
    KH_TRY(kh_buf_format(out, "__fish_seen_subcommand_from %s", name));
    for (size_t i = 0; cli_verbs[i]; i++) {
        const char *other = strchr(cli_verbs[i]->command.name, ' ');
        if (other && strcmp(other + 1, name) == 0)
            KH_TRY(kh_buf_format(out, "; and not __fish_seen_subcommand_from %.*s",
                                 (int)first_size(i), cli_verbs[i]->command.name));
    }
    return KH_OK;
}

static kh_status fish_option(kh_buf *out, const cli_verb *verb, const kh_opt *option)
{
    KH_TRY(kh_buf_text(out, "complete -c keyhole -n '"));
    KH_TRY(fish_seen(out, verb->command.name));
    KH_TRY(kh_buf_text(out, "'"));
    const char *at = option->names, *name;
    for (size_t n; (n = kh_opt_spelling(&at, &name)) > 0;) {
        if (name[1] == '-')
            KH_TRY(kh_buf_format(out, " -l %.*s", (int)n - 2, name + 2));
        else
            KH_TRY(kh_buf_format(out, " -%c %.*s", n == 2 ? 's' : 'o', (int)n - 1, name + 1));
    }
    if (option->choices && option->argument) {
        KH_TRY(kh_buf_text(out, " -x -a '"));
        for (int i = 0; option->choices[i]; i++)
            KH_TRY(kh_buf_format(out, "%s%s", i ? " " : "", option->choices[i]));
        KH_TRY(kh_buf_text(out, "'"));
    } else if (option->argument) {
        KH_TRY(kh_buf_text(out, takes_file(option) ? " -r -F" : " -x"));
    }
    KH_TRY(kh_buf_text(out, " -d '"));
    KH_TRY(fish_text(out, option->help));
    return kh_buf_text(out, "'\n");
}

static kh_status fish(kh_buf *out)
{
    KH_TRY(kh_buf_text(out, "# fish completion of keyhole; generated\n"
                            "complete -c keyhole -n __fish_use_subcommand -f\n"));
    for (size_t i = 0; cli_verbs[i]; i++) {
        const char *name = cli_verbs[i]->command.name, *space = strchr(name, ' ');
        if (space && begins_group(i)) /* a first word that is no verb */
            KH_TRY(kh_buf_format(out, "complete -c keyhole -n __fish_use_subcommand -a %.*s\n",
                                 (int)(space - name), name));
        if (space) {
            KH_TRY(kh_buf_format(out,
                                 "complete -c keyhole -n '__fish_seen_subcommand_from %.*s; and "
                                 "not __fish_seen_subcommand_from ",
                                 (int)(space - name), name));
            KH_TRY(second_words(out, name, (size_t)(space - name)));
            KH_TRY(kh_buf_format(out, "' -a %s -d '", space + 1));
        } else
            KH_TRY(kh_buf_format(out, "complete -c keyhole -n __fish_use_subcommand -a %s -d '",
                                 name));
        KH_TRY(fish_text(out, cli_verbs[i]->command.does));
        KH_TRY(kh_buf_text(out, "'\n"));
        KH_TRY(walk(out, cli_verbs[i], fish_option));
    }
    return KH_OK;
}

kh_status cli_complete(kh_buf *out, const char *shell)
{
    if (strcmp(shell, "bash") == 0) return bash(out);
    if (strcmp(shell, "zsh") == 0) return zsh(out);
    if (strcmp(shell, "fish") == 0) return fish(out);
    KH_FAIL(KH_ERR_ARGUMENT, "completion: '%s' is not one of bash, zsh, fish", shell);
}

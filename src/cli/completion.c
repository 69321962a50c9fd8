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

/* The second words of the verbs that have two; all of them follow `bench`. */
static kh_status second_words(kh_buf *out)
{
    for (size_t i = 0; cli_verbs[i]; i++) {
        const char *space = strchr(cli_verbs[i]->command.name, ' ');
        if (space) KH_TRY(kh_buf_format(out, "%s ", space + 1));
    }
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
                       "        COMPREPLY=($(compgen -W \"help --help --version"));
    for (size_t i = 0; cli_verbs[i]; i++)
        if (!strchr(cli_verbs[i]->command.name, ' '))
            KH_TRY(kh_buf_format(out, " %s", cli_verbs[i]->command.name));
    KH_TRY(kh_buf_text(out, "\" -- \"$cur\") $(compgen -f -X '!*.gguf' -- \"$cur\"))\n"
                            "        return\n    fi\n"
                            "    if [ \"$verb\" = help ]; then verb= options=\""));
    for (size_t i = 0; cli_verbs[i]; i++)
        if (!strchr(cli_verbs[i]->command.name, ' '))
            KH_TRY(kh_buf_format(out, "%s ", cli_verbs[i]->command.name));
    KH_TRY(kh_buf_text(out, "\"; fi\n    case \"$verb ${COMP_WORDS[2]}\" in\n"));
    for (size_t i = 0; cli_verbs[i]; i++)
        if (strchr(cli_verbs[i]->command.name, ' '))
            KH_TRY(kh_buf_format(out, "    \"%s\") verb=\"%s\" ;;\n", cli_verbs[i]->command.name,
                                 cli_verbs[i]->command.name));
    KH_TRY(kh_buf_text(out, "    esac\n    case $verb in\n"));
    for (size_t i = 0; cli_verbs[i]; i++) KH_TRY(bash_verb(out, cli_verbs[i]));
    KH_TRY(kh_buf_text(out, "    esac\n    [ \"$verb $COMP_CWORD\" = \"bench 2\" ] && options=\""));
    KH_TRY(second_words(out));
    return kh_buf_text(out, "$options\"\n"
                            "    COMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
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

static kh_status zsh(kh_buf *out)
{
    KH_TRY(kh_buf_text(out, "#compdef keyhole\n# zsh completion of keyhole; generated\n"
                            "_keyhole() {\n    local -a verbs\n    verbs=(\n"));
    for (size_t i = 0; cli_verbs[i]; i++) {
        if (strchr(cli_verbs[i]->command.name, ' ')) continue;
        KH_TRY(kh_buf_format(out, "        '%s:", cli_verbs[i]->command.name));
        KH_TRY(zsh_text(out, cli_verbs[i]->command.does));
        KH_TRY(kh_buf_text(out, "'\n"));
    }
    KH_TRY(kh_buf_text(out, "        'help:the options of a verb'\n    )\n"
                            "    if (( CURRENT == 2 )); then\n"
                            "        _describe verb verbs\n"
                            "        _files -g '*.gguf'\n        return\n    fi\n"
                            "    local verb=$words[2]\n    shift words\n    (( CURRENT-- ))\n"
                            "    if [[ $verb = bench ]]; then\n        local -a measures\n"
                            "        measures=(\n"));
    for (size_t i = 0; cli_verbs[i]; i++) {
        const char *space = strchr(cli_verbs[i]->command.name, ' ');
        if (!space) continue;
        KH_TRY(kh_buf_format(out, "            '%s:", space + 1));
        KH_TRY(zsh_text(out, cli_verbs[i]->command.does));
        KH_TRY(kh_buf_text(out, "'\n"));
    }
    KH_TRY(kh_buf_text(out,
                       "        )\n        if (( CURRENT == 2 )); then\n"
                       "            _describe measure measures\n"
                       "        elif (( ${measures[(I)$words[2]:*]} )); then\n"
                       "            verb=\"bench $words[2]\"\n            shift words\n"
                       "            (( CURRENT-- ))\n        fi\n    fi\n    case $verb in\n"));
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

static kh_status fish_option(kh_buf *out, const cli_verb *verb, const kh_opt *option)
{
    const char *space = strchr(verb->command.name, ' ');
    KH_TRY(kh_buf_format(out, "complete -c keyhole -n '__fish_seen_subcommand_from %s'",
                         space ? space + 1 : verb->command.name));
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
        if (space) {
            KH_TRY(kh_buf_format(out,
                                 "complete -c keyhole -n '__fish_seen_subcommand_from %.*s; and "
                                 "not __fish_seen_subcommand_from ",
                                 (int)(space - name), name));
            KH_TRY(second_words(out));
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

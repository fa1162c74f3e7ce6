"""`envctl completion`: scripts for shells, made from the tables of commands and flags.

They complete commands, flags, the values of a few flags, and names of environments, which
they ask the node for, briefly and quietly.
"""

from __future__ import annotations

from envd.cli import exits
from envd.cli.exits import UsageError
from envd.cli.grammar import GLOBAL_FLAGS, Command, Flag
from envd.cli.invocation import Invocation
from envd.cli.main import load_command
from envd.cli.table import SUMMARIES

_SHELLS = ("bash", "zsh", "fish")
_NAMES = (
    "envctl list --output json --timeout 2s 2>/dev/null"
    """ | sed -n 's|^ *"environment": "\\([a-z0-9._/-]*\\)".*|\\1|p'"""
)
"""Names and nothing else: bash's compgen would run what stands in $(...)."""
_WITHOUT_ENVIRONMENT = {
    *("undelete", "find", "context", "login", "whoami", "dev", "doctor", "completion"),
    *("plan", "apply", "scan", "bench", "backup", "cluster", "sync", "backend"),
}
_WITH_ENVIRONMENT = frozenset(SUMMARIES) - _WITHOUT_ENVIRONMENT
_WITH_FILES = ("diff", "import", "scan")
_OF_FILES = ("--file", "--from-file", "--demo", "--ca", "--cert", "--key")
_OF_DIRECTORIES = ("--directory", "-f", "--data")
_TAKING = "|".join(
    each for flag in GLOBAL_FLAGS if flag.metavar for each in (flag.short, flag.name) if each
)
"""The flags that may stand before the command with a word of their own."""


def _completion(invocation: Invocation) -> int:
    words = invocation.take_words(most=1)
    if not words or words[0] not in _SHELLS:
        raise UsageError(f"which shell? one of {', '.join(_SHELLS)}", hint="envctl completion bash")
    flags = {name: (*load_command(name).flags, *GLOBAL_FLAGS) for name in SUMMARIES}
    scripts = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    invocation.screen.block(scripts[words[0]](flags))
    return exits.DONE


def _bash(flags: dict[str, tuple[Flag, ...]]) -> str:
    cases = "\n".join(
        f"        {name}) flags='{' '.join(flag.name for flag in each)}' ;;"
        for name, each in flags.items()
    )
    choices = "\n".join(
        f"        {_case(flag)}) COMPREPLY=($(compgen -W '{' '.join(flag.choices)}' -- \"$word\"));"
        " return ;;"
        for flag in _with_choices(flags)
    )
    return f"""\
# bash completion for envctl; put this into ~/.bashrc:  source <(envctl completion bash)
_envctl_environments() {{
    {_NAMES}
}}
_envctl() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    local command= flags= each skip=
    for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        if [ -n "$skip" ] && [ "$each" != "=" ]; then
            skip=
            continue
        fi
        case "$each" in
        --) COMPREPLY=($(compgen -c -- "$word")); return ;;
        {_TAKING}) skip=1 ;;
        -*|=) ;;
        *) [ -n "$command" ] || command="$each" ;;
        esac
    done
    case "$before" in
{choices}
        {"|".join(_OF_FILES)}) COMPREPLY=($(compgen -f -- "$word")); return ;;
        {"|".join(_OF_DIRECTORIES)}) COMPREPLY=($(compgen -d -- "$word")); return ;;
    esac
    if [ -z "$command" ]; then
        COMPREPLY=($(compgen -W '{" ".join(flags)}' -- "$word"))
        return
    fi
    case "$command" in
{cases}
    esac
    case "$word" in
    -*) COMPREPLY=($(compgen -W "$flags" -- "$word")); return ;;
    esac
    case "$command" in
        {"|".join(sorted(_WITH_ENVIRONMENT))})
            COMPREPLY=($(compgen -W "$(_envctl_environments)" -- "$word")) ;;
        completion) COMPREPLY=($(compgen -W '{" ".join(_SHELLS)}' -- "$word")) ;;
    esac
    case "$command" in
        {"|".join(_WITH_FILES)}) COMPREPLY+=($(compgen -f -- "$word")) ;;
    esac
}}
complete -F _envctl envctl
"""


def _zsh(flags: dict[str, tuple[Flag, ...]]) -> str:
    commands = "\n".join(f"    {_quoted(f'{name}:{SUMMARIES[name]}')}" for name in flags)
    cases = "\n".join(
        f"        {name}) options=({' '.join(_zsh_flag(flag) for flag in each)}) ;;"
        for name, each in flags.items()
    )
    choices = "\n".join(
        f"        {_case(flag)}) compadd -- {' '.join(flag.choices)}; return ;;"
        for flag in _with_choices(flags)
    )
    return f"""\
#compdef envctl
# zsh completion for envctl; put this into ~/.zshrc, after compinit:
#   source <(envctl completion zsh)
_envctl_environments() {{
    local -a names
    names=(${{(f)"$({_NAMES})"}})
    compadd -a names
}}
_envctl() {{
    local -a known options
    local command= each skip=
    local -i program=${{words[(i)--]}}
    known=(
{commands}
    )
    if (( program < CURRENT )); then
        shift $program words
        (( CURRENT -= program ))
        _normal
        return
    fi
    for each in "${{(@)words[2,CURRENT-1]}}"; do
        if [[ -n "$skip" ]]; then
            skip=
            continue
        fi
        case "$each" in
            {_TAKING}) skip=1 ;;
            -*) ;;
            *) [[ -n "$command" ]] || command="$each" ;;
        esac
    done
    case "$words[CURRENT-1]" in
{choices}
        {"|".join(_OF_FILES)}) _files; return ;;
        {"|".join(_OF_DIRECTORIES)}) _files -/; return ;;
    esac
    if [[ -z "$command" ]]; then
        _describe command known
        return
    fi
    case "$command" in
{cases}
    esac
    if [[ "$PREFIX" == -* ]]; then
        _describe flag options
        return
    fi
    case "$command" in
        {"|".join(sorted(_WITH_ENVIRONMENT))}) _envctl_environments ;;
        completion) compadd {" ".join(_SHELLS)} ;;
    esac
    case "$command" in
        {"|".join(_WITH_FILES)}) _files ;;
    esac
}}
compdef _envctl envctl
"""


def _fish(flags: dict[str, tuple[Flag, ...]]) -> str:
    lines = [
        "# fish completion for envctl; put this into ~/.config/fish/config.fish:",
        "#   envctl completion fish | source",
        "function __envctl_environments",
        f"    {_NAMES}",
        "end",
        "function __envctl_command",
        "    set -l skip 0",
        "    for each in (commandline -opc)[2..]",
        "        if test $skip = 1",
        "            set skip 0",
        "            continue",
        "        end",
        "        switch $each",
        f"            case {_TAKING.replace('|', ' ')}",
        "                set skip 1",
        "            case '-*'",
        "            case '*'",
        "                echo $each",
        "                return",
        "        end",
        "    end",
        "end",
        "function __envctl_of",
        "    set -l command (__envctl_command)",
        '    not __envctl_program; and test "$command" = "$argv"',
        "end",
        "function __envctl_program",
        "    contains -- -- (commandline -opc)",
        "end",
        "complete -c envctl -f",
        "complete -c envctl -n __envctl_program -a '(__fish_complete_command)'",
        "complete -c envctl -n __envctl_program -F",
    ]
    lines += [
        f"complete -c envctl -n 'not __envctl_program' {_fish_flag(flag)}" for flag in GLOBAL_FLAGS
    ]
    for name, each in flags.items():
        seen = f"__envctl_of {name}"
        lines.append(
            f"complete -c envctl -n '__envctl_of \"\"' -a {name} -d {_quoted(SUMMARIES[name])}"
        )
        if name in _WITH_ENVIRONMENT:
            lines.append(f"complete -c envctl -n '{seen}' -a '(__envctl_environments)'")
        if name in _WITH_FILES:
            lines.append(f"complete -c envctl -n '{seen}' -F")
        own = (flag for flag in each if flag not in GLOBAL_FLAGS)
        lines += [f"complete -c envctl -n '{seen}' {_fish_flag(flag)}" for flag in own]
    lines.append(f"complete -c envctl -n '__envctl_of completion' -a '{' '.join(_SHELLS)}'")
    return "\n".join(lines) + "\n"


def _fish_flag(flag: Flag) -> str:
    parts = [f"-l {flag.name.removeprefix('--')}"]
    if flag.short:
        parts.append(f"-s {flag.short.removeprefix('-')}")
    if flag.choices:
        parts.append(f"-x -a '{' '.join(flag.choices)}'")
    elif flag.name in (*_OF_FILES, *_OF_DIRECTORIES):
        parts.append("-r -F")
    elif flag.metavar:
        parts.append("-x")
    return " ".join([*parts, f"-d {_quoted(flag.help)}"])


def _zsh_flag(flag: Flag) -> str:
    return _quoted(f"{flag.name}:{flag.help.replace(':', ' ')}")


def _case(flag: Flag) -> str:
    return f"{flag.short}|{flag.name}" if flag.short else flag.name


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _with_choices(flags: dict[str, tuple[Flag, ...]]) -> list[Flag]:
    """Every flag with a closed set of values; where commands differ, the first one counts."""
    found = {flag.name: flag for each in flags.values() for flag in each if flag.choices}
    return list(found.values())


COMPLETION = Command(
    usage=("bash|zsh|fish",),
    about="""
    Print a script that teaches your shell to complete envctl's commands, flags and the names
    of your environments.
    """,
    examples=(
        ("source <(envctl completion bash)", "in ~/.bashrc"),
        ("source <(envctl completion zsh)", "in ~/.zshrc"),
        ("envctl completion fish | source", "in ~/.config/fish/config.fish"),
    ),
    run=_completion,
)

"""completion: scripts that complete command lines in bash, zsh and fish, made from the declarations.

The scripts hold everything that they offer, so that pressing Tab starts no Python. All three first find the
command, among flags and their values, and then offer the values of a flag, flags, commands or files.
"""

from __future__ import annotations

import shlex

from ..rules.istio import PROGRAM
from ..settings.commands import COMMANDS, GROUPS
from ..settings.declared import SETTINGS, SOURCES
from ..settings.go_flags import HELP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..settings.commands import Command
    from ..settings.declared import Setting

_FLAGS = (*(setting for setting in SETTINGS if setting.has_flag), *SOURCES)
#: The flags before which a value is expected, of all commands together.
_VALUED = sorted(
    {
        flag
        for setting in (*_FLAGS, *(option for command in COMMANDS for option in command.options))
        if not setting.is_boolean
        for flag in (f"--{setting.name}", *([f"-{setting.short}"] if setting.short else []))
    }
)


def script(shell: str) -> str:
    """Return the script for a shell: bash, zsh or fish."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def _spellings(setting: Setting) -> tuple[str, ...]:
    return (f"--{setting.name}", *([f"-{setting.short}"] if setting.short else []))


def _values(setting: Setting) -> tuple[str, ...]:
    return ("true", "false") if setting.is_boolean else setting.values


def _next_words(name: str) -> dict[str, str]:
    """Return the words that may follow a command's name, and their descriptions."""
    if name == "help":
        return {word: text for word, text in _next_words("").items() if word != "help"}
    found: dict[str, str] = {}
    for command in COMMANDS:
        words = command.words if name == "" else command.words[1:] if command.words[0] == name else ()
        if words and command.name != name:
            found.setdefault(words[0], GROUPS.get(words[0], command.help) if name == "" else command.help)
    return found


def _names() -> list[str]:
    """Return what can be a command's name, or its beginning; the empty one is a line without a command."""
    return ["", *GROUPS, *(command.name for command in COMMANDS)]


def _takes_files(command: Command) -> bool:
    return command.operand is not None and command.operand.name == "FILE"


def _operands(name: str) -> dict[str, str]:
    """Return the words that can be listed after a command: commands, or values of its operand."""
    operand = next((command.operand for command in COMMANDS if command.name == name), None)
    return dict.fromkeys(operand.values, "") if operand and operand.values else _next_words(name)


# --- bash -----------------------------------------------------------------------------------

_BASH = """\
# bash completion for {program}. Load it with: source <({program} completion bash)
_istio_iptables_files() {{
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
    compopt -o filenames 2>/dev/null
}}
_istio_iptables() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
    local command="" words="" word
    local -i i skip=0 equals=0
    # bash splits --flag=value into three words.
    if [[ $current == "=" ]]; then
        current="" equals=1
    elif [[ $previous == "=" ]]; then
        previous=${{COMP_WORDS[COMP_CWORD - 2]}} equals=1
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        if ((skip)) && [[ $word != "=" ]]; then
            skip=0
            continue
        fi
        case $word in
            = | {valued}) skip=1 ;;
            -*) ;;
            *)
                case "${{command:+$command }}$word" in
                    {names}) command="${{command:+$command }}$word" ;;
                esac
                ;;
        esac
    done
    case "$equals:$command:$previous" in
{values}
        1:* | {valueless}) return ;;
        *)
            if [[ $current == -* ]]; then
                words="{flags}"
                case $command in
{options}
                esac
            else
                case $command in
{operands}
                esac
            fi
            ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}}
complete -F _istio_iptables {program}
"""


def _bash() -> str:
    values = []
    for name, setting in _by_command():
        equals = "1" if setting.is_boolean else "[01]"
        command = name or "*"
        patterns = " | ".join(f"{equals}:{_bash_pattern(command)}:{flag}" for flag in _spellings(setting))
        if setting.metavar == "FILE":
            values.append(f"        {patterns}) _istio_iptables_files; return ;;")
        elif _values(setting):
            values.append(f'        {patterns}) words="{" ".join(_values(setting))}" ;;')
    operands = []
    for name in _names():
        if words := _operands(name):
            operands.append(f'                    "{name}") words="{" ".join(words)}" ;;')
    files = " | ".join(f'"{command.name}"' for command in COMMANDS if _takes_files(command))
    operands.append(f"                    {files}) _istio_iptables_files; return ;;")
    return _BASH.format(
        program=PROGRAM,
        valued=" | ".join(_VALUED),
        names=" | ".join(f'"{name}"' for name in _names() if name),
        values="\n".join(values),
        valueless=" | ".join(f"*:{flag}" for flag in _VALUED),
        flags=" ".join([*(flag for s in _FLAGS for flag in _spellings(s)[:1]), *HELP[:1], "--version"]),
        options="\n".join(
            f'                    "{command.name}") words+=" {_long_flags(command.options)}" ;;'
            for command in COMMANDS
            if command.options
        ),
        operands="\n".join(operands),
    )


def _bash_pattern(command: str) -> str:
    return command if command == "*" else f'"{command}"'


def _long_flags(settings: Iterable[Setting]) -> str:
    return " ".join(f"--{setting.name}" for setting in settings)


def _by_command() -> list[tuple[str, Setting]]:
    """Return the options with the command that they belong to, and then the settings of every command."""
    options = [(command.name, option) for command in COMMANDS for option in command.options]
    return [*options, *(("", setting) for setting in _FLAGS)]


# --- zsh ------------------------------------------------------------------------------------

_ZSH = """\
#compdef {program}
# zsh completion for {program}. Load it with: source <({program} completion zsh)
_istio-iptables() {{
    local command="" word state line
    local -a flags listed
    local -A opt_args
    integer skip=0
    for word in ${{words[2,CURRENT-1]}}; do
        if ((skip)); then
            skip=0
            continue
        fi
        case $word in
            ({valued}) skip=1 ;;
            (-*) ;;
            (*)
                case "${{command:+$command }}$word" in
                    ({names}) command="${{command:+$command }}$word" ;;
                esac
                ;;
        esac
    done
    flags=(
{flags}
    )
    case $command in
{options}
    esac
    _arguments -s : $flags '*: :->words'
    [[ $state == words ]] || return
    case $command in
{operands}
        ({files}) _files ; return ;;
    esac
    _describe -t commands argument listed
}}
if [[ $funcstack[1] == _istio-iptables ]]; then
    _istio-iptables "$@"
else
    compdef _istio-iptables {program}
fi
"""


def _zsh() -> str:
    operands = []
    for name in _names():
        if words := _operands(name):
            listed = " ".join(shlex.quote(f"{word}:{text}" if text else word) for word, text in words.items())
            operands.append(f'        ("{name}") listed=({listed}) ;;')
    return _ZSH.format(
        program=PROGRAM,
        valued="|".join(_VALUED),
        names="|".join(f'"{name}"' for name in _names() if name),
        flags="\n".join(
            [
                *(f"        {line}" for setting in _FLAGS for line in _zsh_specifications(setting)),
                "        '(-h --help)'{-h,--help}'[Show help and exit.]'",
                "        '(-V --version)'{-V,--version}'[Print the version.]'",
            ]
        ),
        options="\n".join(
            f'        ("{command.name}") flags+=({" ".join(lines)}) ;;'
            for command in COMMANDS
            if (lines := [line for option in command.options for line in _zsh_specifications(option)])
        ),
        operands="\n".join(operands),
        files="|".join(f'"{command.name}"' for command in COMMANDS if _takes_files(command)),
    )


def _zsh_specifications(setting: Setting) -> list[str]:
    """Return a flag as arguments of zsh's _arguments (zshcompsys(1))."""
    text = "".join(f"\\{letter}" if letter in "[]:\\" else letter for letter in setting.help)
    if setting.is_boolean:
        lines = [f"--{setting.name}=-[{text}]::{setting.metavar}:(true false)"]
        if setting.short:
            lines.append(f"-{setting.short}[{text}]")
        return [shlex.quote(line) for line in lines]
    action = (
        "_files" if setting.metavar == "FILE" else f"({' '.join(setting.values)})" if setting.values else " "
    )
    flags = [f"--{setting.name}=", *([f"-{setting.short}+"] if setting.short else [])]
    excluded = f"({' '.join(_spellings(setting))})"
    return [shlex.quote(f"{excluded}{flag}[{text}]:{setting.metavar}:{action}") for flag in flags]


# --- fish -----------------------------------------------------------------------------------

_FISH = """\
# fish completion for {program}. Load it with: {program} completion fish | source
function __istio_iptables_is --description 'Tell whether the command on the command line is this one'
    set --local command ''
    set --local skip 0
    for word in (commandline --tokenize --cut-at-cursor --current-process)[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
            case {valued}
                set skip 1
            case '-*'
            case '*'
                set --local name (string trim -- "$command $word")
                if contains -- $name {names}
                    set command $name
                end
        end
    end
    test "$command" = "$argv[1]"
end
complete --command {program} --no-files
{lines}
"""


def _fish() -> str:
    lines = []
    for name, setting in _by_command():
        given = ["--long-option", setting.name]
        if setting.short:
            given += ["--short-option", setting.short]
        if setting.metavar == "FILE":
            given += ["--require-parameter", "--force-files"]
        elif not setting.is_boolean:
            given += ["--exclusive"]
            given += ["--arguments", _fish_text(" ".join(setting.values))] if setting.values else []
        lines.append(
            _fish_line(name, [*given, "--description", _fish_text(setting.help)], everywhere=not name)
        )
    for name in _names():
        for word, text in _operands(name).items():
            given = ["--arguments", word]
            lines.append(_fish_line(name, [*given, *(["--description", _fish_text(text)] if text else [])]))
    for command in COMMANDS:
        if _takes_files(command):
            lines.append(_fish_line(command.name, ["--force-files"]))
    for long, short, text in (("help", "h", "Show help and exit."), ("version", "V", "Print the version.")):
        given = ["--long-option", long, "--short-option", short, "--description", _fish_text(text)]
        lines.append(_fish_line("", given, everywhere=True))
    return _FISH.format(
        program=PROGRAM,
        valued=" ".join(_VALUED),
        names=" ".join(_fish_text(name) for name in _names() if name),
        lines="\n".join(lines),
    )


def _fish_line(name: str, given: list[str], *, everywhere: bool = False) -> str:
    condition = [] if everywhere else ["--condition", _fish_text(f'__istio_iptables_is "{name}"')]
    return " ".join(["complete", "--command", PROGRAM, *condition, *given])


def _fish_text(text: str) -> str:
    """Return a text in single quotes, in which fish knows a backslash only before both of these."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

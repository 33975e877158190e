"""go_flags: read a command line as Go's pflag does, since pod specs are written for pflag.

It turns arguments into an Invocation: the settings with their text and flag, the command, and the options
and operands of that command. It knows the declarations in declared.py and commands.py, and nothing of their
meaning. It does not stop at the first mistake: all of them are in the Invocation.

The syntax (github.com/spf13/pflag): `--flag value`, `--flag=value`; a boolean takes a value only after `=`;
`-p 15001`, `-p15001`, `-p=15001`; short booleans may be joined (`-np15001`); a flag that needs a value
takes the next argument, even if that begins with a dash.
"""

from __future__ import annotations

from ..rules.istio import PROGRAM
from ..startup.record import Record
from .commands import COMMAND_BY_NAME, COMMANDS, GROUPS
from .declared import BY_NAME, BY_SHORT, SOURCE_BY_NAME, SOURCES
from .texts import Given, nearest, quoted, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .declared import Setting


#: Flags that ask for help or the version (__main__.py answers) or for completion (cli/typer_app.py).
HELP = ("--help", "-h")
VERSION = ("--version", "-V")
COMPLETION: Mapping[str, str] = {
    "--install-completion": "Install completion for the current shell.",
    "--show-completion": "Show completion for the current shell, to copy it or customize the installation.",
}
META = (*HELP, *VERSION, *COMPLETION)

#: Words of command names: after an unknown flag, one of these is not taken for its value.
_COMMAND_WORDS = frozenset(word for command in COMMANDS for word in command.words)


class Invocation(Record):
    """A parsed command line.

    `settings`, `sources` (--config, ...) and `options` (of the command) are in the order given. `command` may
    be a group without a command, which is a mistake unless help is asked for. `meta` are flags such as
    --help.
    """

    settings: tuple[Given, ...] = ()
    sources: tuple[Given, ...] = ()
    command: str = ""
    options: tuple[Given, ...] = ()
    operands: tuple[str, ...] = ()
    meta: tuple[str, ...] = ()
    mistakes: tuple[str, ...] = ()

    def canonical(self) -> list[str]:
        """Return the command line in canonical form: `--name=value`, and settings before the command."""

        def spelled(given: Given) -> str:
            return f"--{given.setting.name}={given.text}"

        of_command = [flag for flag in self.meta if flag in HELP] if self.command else []
        arguments = [flag for flag in self.meta if flag not in of_command]
        arguments += [spelled(given) for given in (*self.sources, *self.settings)]
        if self.command:
            arguments += [*self.command.split(), *(spelled(given) for given in self.options)]
        return [*arguments, *of_command, *(["--", *self.operands] if self.operands else [])]


class _Reader:
    """The state of reading one command line."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.rest = list(arguments)
        self.given: list[Given] = []
        self.meta: list[str] = []
        self.mistakes: list[str] = []
        self.command = ""
        self.operands: list[str] = []
        #: True after an unknown command of a group: the arguments after it cannot be assigned to a command.
        self.command_is_unknown = False
        self.long: Mapping[str, Setting] = {
            **{name: setting for name, setting in BY_NAME.items() if setting.has_flag},
            **SOURCE_BY_NAME,
        }

    def read(self) -> None:
        """Read all arguments."""
        if self.rest and self.rest[0] == PROGRAM:
            self.rest.pop(0)
        while self.rest:
            argument = self.rest.pop(0)
            if argument.partition("=")[0] in META:
                self.meta.append(argument)
            elif argument == "--":
                for rest in self.rest:
                    self._positional(rest)
                self.rest.clear()
            elif argument.startswith("--"):
                self._long(argument)
            elif argument.startswith("-") and argument != "-":
                self._shorts(argument)
            else:
                self._positional(argument)
        self._complete()

    def _positional(self, argument: str) -> None:
        """Take an argument that is not a flag: a word of the command's name, or an operand."""
        command = COMMAND_BY_NAME.get(self.command)
        if command is None:
            self._command(argument)
        elif command.operand and (not command.operand.most or len(self.operands) < command.operand.most):
            self.operands.append(argument)
        else:
            self.mistakes.append(f"{quoted(argument)}: unexpected argument after the command {self.command}")

    def _command(self, word: str) -> None:
        if self.command_is_unknown:
            return
        name = f"{self.command} {word}".strip()
        if name in COMMAND_BY_NAME:
            self.command = name
            self.long = {**self.long, **{o.name: o for o in COMMAND_BY_NAME[name].options}}
        elif name in GROUPS:
            self.command = name
        else:
            known = [command.name for command in COMMANDS if command.name.startswith(self.command)]
            hint = nearest(name, known) or f" (commands: {', '.join(known)})"
            self.mistakes.append(f"{quoted(name)}: unknown command{hint}")
            self.command_is_unknown = bool(self.command)

    def _complete(self) -> None:
        """Report what is missing, unless there are other mistakes, which may be the reason."""
        if self.mistakes or self.meta:
            return
        if self.command in ("help", "version"):
            self._as_meta()
            return
        command = COMMAND_BY_NAME.get(self.command)
        if command and command.operand and command.operand.values:
            allowed = command.operand.values
            self.mistakes += [
                f"{self.command}: {quoted(word)} is not one of {', '.join(allowed)}"
                for word in (self.operands[:1] if command.operand.rest else self.operands)
                if word not in allowed
            ]
        if command is None and self.command:
            known = [command.name for command in COMMANDS if command.words[0] == self.command]
            self.mistakes.append(f"{self.command}: needs a subcommand (commands: {', '.join(known)})")
        elif command and command.operand and len(self.operands) < command.operand.least:
            self.mistakes.append(f"{self.command}: needs {command.operand.usage} ({command.operand.help})")

    def _as_meta(self) -> None:
        """Turn the commands `help` and `version` into the flags that mean the same."""
        name = " ".join(self.operands)
        if name and name not in COMMAND_BY_NAME and name not in GROUPS:
            hint = nearest(name, [*COMMAND_BY_NAME, *GROUPS])
            self.mistakes.append(f"{quoted(name)}: unknown command{hint}")
            return
        self.meta.append(f"--{self.command}")
        self.command = name
        self.operands.clear()

    def _long(self, argument: str) -> None:
        name, equals, value = argument[2:].partition("=")
        setting = self.long.get(name)
        if setting is None:
            self._unknown(f"--{name}", bool(equals), nearest(f"--{name}", [f"--{n}" for n in self.long]))
        elif equals:
            self._take(setting, value, f"--{name}")
        elif setting.is_boolean:
            self._take(setting, "true", f"--{name}")
        else:
            self._take_next(setting, f"--{name}")

    def _shorts(self, argument: str) -> None:
        letters = argument[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            setting = BY_SHORT.get(letter)
            if setting is None:
                self._unknown(f"-{letter}", bool(letters), "")
                return
            origin = f"--{setting.name} (-{letter})"
            if letters.startswith("="):
                self._take(setting, letters[1:], origin)
                return
            if setting.is_boolean:
                self._take(setting, "true", origin)
            elif letters:
                self._take(setting, letters, origin)
                return
            else:
                self._take_next(setting, origin)

    def _take(self, setting: Setting, value: str, origin: str) -> None:
        self.given.append(Given(setting, value, origin))

    def _take_next(self, setting: Setting, origin: str) -> None:
        if self.rest:
            self._take(setting, self.rest.pop(0), origin)
        else:
            self.mistakes.append(f"{origin}: needs a value")

    def _unknown(self, flag: str, has_value: bool, hint: str) -> None:
        self.mistakes.append(f"{shown(flag)}: unknown flag{hint}")
        next_is_its_value = self.rest and not self.rest[0].startswith("-")
        if not has_value and next_is_its_value and self.rest[0] not in _COMMAND_WORDS:
            self.rest.pop(0)


def flag_of(argument: str) -> str:
    """Return the flag that an argument begins with, as origins name it, or an empty string.

    >>> flag_of("--envoy-port=1"), flag_of("-p1"), flag_of("apply")
    ('--envoy-port', '--envoy-port (-p)', '')
    """
    if argument.startswith("--"):
        return argument.partition("=")[0]
    setting = BY_SHORT.get(argument[1:2]) if argument.startswith("-") else None
    return f"--{setting.name} (-{setting.short})" if setting else ""


def read_arguments(arguments: Sequence[str]) -> Invocation:
    """Parse a command line, without argv[0]. Mistakes are in the result; nothing is raised."""
    reader = _Reader(arguments)
    reader.read()
    sources = tuple(given for given in reader.given if given.setting in SOURCES)
    settings = tuple(given for given in reader.given if given.setting.name in BY_NAME)
    options = tuple(g for g in reader.given if g not in sources and g not in settings)
    return Invocation(
        settings,
        sources,
        reader.command,
        options,
        tuple(reader.operands),
        tuple(reader.meta),
        tuple(reader.mistakes),
    )

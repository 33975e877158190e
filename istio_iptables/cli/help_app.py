"""help_app: the Typer application. It answers help, --version and completion.

All that it shows is declared in settings/declared.py and settings/commands.py: the options are made from
these tables. It could run the commands too: what it parses becomes an Invocation for the handlers, so that
tests can compare it with settings/go_flags.py. Arguments come in the canonical form `--name=value`, which
Invocation.canonical() returns.
"""

from __future__ import annotations

import inspect
import keyword
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from .. import __version__
from ..rules import istio
from ..rules.istio import PROGRAM
from ..settings.commands import COMMANDS, EXAMPLES, EXIT_CODES, GROUPS, Command, Operand
from ..settings.declared import BY_NAME, SETTINGS, SOURCES, Setting
from ..settings.go_flags import Invocation
from ..settings.texts import Given
from . import handlers
from .streams import complain, is_styled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_EPILOG = (
    "Every setting can be given by its flag, by the variable shown, in a --config file, or by a --pod "
    "manifest. A flag takes precedence over a variable, a variable over a file. "
    f"Exit codes: {'; '.join(f'{code} {text}' for code, text in EXIT_CODES.items())}."
)
_COMMAND_EPILOG = f"All settings can be given with this command: `{PROGRAM} --help` lists them."
_HELP = (
    f"Write the rules that send a pod's TCP traffic through its Envoy sidecar: outbound to port "
    f"{istio.OUTBOUND_PORT}, inbound to port {istio.INBOUND_PORT}. Envoy's own traffic (UID "
    f"{istio.PROXY_ID}) is left alone."
)


def _option(setting: Setting, panel: str) -> inspect.Parameter:
    """Return a setting as a parameter of a Typer callback. Booleans are strings, too: see go_flags.py.

    It may be given several times. Each value is checked, and the last one is used (of sources, all are).
    """
    variables = ", ".join(setting.variables) if setting.name in BY_NAME else ""
    option = typer.Option(
        f"--{setting.name}",
        *([f"-{setting.short}"] if setting.short else []),
        help=f"{_described(setting)} [{variables}]" if variables else _described(setting),
        metavar=setting.metavar,
        show_default=False,
        rich_help_panel=panel,
    )
    return inspect.Parameter(
        _identifier(setting),
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[list[str] | None, option],
    )


#: The parameter of a callback that takes the operands, whatever they are called in help.
_OPERANDS = "operands"


def _argument(operand: Operand) -> inspect.Parameter:
    """Return an operand as a parameter of a Typer callback. go_flags.py has checked how many there are."""
    argument = typer.Argument(help=operand.help, metavar=operand.usage, show_default=False)
    return inspect.Parameter(
        _OPERANDS,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if operand.least else None,
        annotation=Annotated[list[str] if operand.least else list[str] | None, argument],
    )


def _described(setting: Setting) -> str:
    return f"{setting.help} (default: {setting.default})" if setting.default else setting.help


def _identifier(setting: Setting) -> str:
    name = setting.name.lower().replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def _with_signature(
    function: Callable[..., None], name: str, doc: str, parameters: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    """Give a callback the parameters that Typer turns into options."""
    function.__name__ = name
    function.__doc__ = doc
    function.__signature__ = inspect.Signature(list(parameters))  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in parameters}
    return function


def _given(settings: Sequence[Setting], values: Mapping[str, Any]) -> tuple[Given, ...]:
    """Return the settings given, in the order of the declarations."""
    return tuple(
        Given(setting, text, setting.flag)
        for setting in settings
        for text in values.get(_identifier(setting)) or ()
    )


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


#: The base class of errors in arguments, of the copy of click that Typer has under changing names.
_ArgumentError: type[Exception] = typer.BadParameter.__mro__[2]


def _help_by_group(command: Any, context: Any) -> dict[str, list[tuple[str, str]]]:
    """Return the help of the options, by group, as pairs of syntax and description."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            group = getattr(parameter, "rich_help_panel", None) or "This command"
            groups.setdefault(group, []).append((record[0].replace(" BOOL", "[=BOOL]"), record[1]))
    return groups


def _write(groups: Mapping[str, Sequence[tuple[str, str]]], formatter: Any) -> None:
    for title, records in groups.items():
        with formatter.section(_bold(title)):
            formatter.write_dl([(_bold(term), text) for term, text in records])


def _bold(text: str) -> str:
    """Return text in bold (ECMA-48) if standard output is a terminal that shows it."""
    return f"\x1b[1m{text}\x1b[22m" if is_styled() else text


#: Click ends lines at column 80 unless it is told that more is allowed: the terminal's width, as for man.
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 10_000}


class _Settings(typer.core.TyperGroup):
    """Help with commands, examples and settings by group, readable in pipes and narrow terminals too."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, examples, and the settings by group, with those that are only variables."""
        _write({"Commands": [(command.name, _short(command)) for command in COMMANDS]}, formatter)
        with formatter.section(_bold("Examples")):
            for line, text in EXAMPLES.items():
                formatter.write(f"  {_bold(line)}\n")
                formatter.indent()
                formatter.write_text(text)
                formatter.dedent()
        groups = _help_by_group(self, ctx)
        for setting in SETTINGS:
            if not setting.has_flag:
                syntax = f"{setting.variable}={setting.metavar}"
                groups[setting.group].append((syntax, f"Variable only. {_described(setting)}"))
        _write(groups, formatter)


class _Group(typer.core.TyperGroup):
    """Help of a group of commands."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the group's commands."""
        members = [command for command in COMMANDS if command.words[0] == self.name]
        _write({"Commands": [(command.words[-1], _short(command)) for command in members]}, formatter)


class _Command(typer.core.TyperCommand):
    """Help of a command, with its own options only."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options."""
        _write(_help_by_group(self, ctx), formatter)


def _settings_parameters() -> list[inspect.Parameter]:
    """Return the options of the command line itself: every setting that has a flag, files, and --version."""
    by_name, by_place = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    version = typer.Option("--version", "-V", help="Print the version.", callback=_version, is_eager=True)
    return [
        inspect.Parameter("context", by_place, annotation=typer.Context),
        *(_option(setting, setting.group) for setting in SETTINGS if setting.has_flag),
        *(_option(source, "Operation") for source in SOURCES),
        inspect.Parameter("version", by_name, default=False, annotation=Annotated[bool, version]),
    ]


def make_app() -> typer.Typer:
    """Make the application from the declarations."""
    app = typer.Typer(
        name=PROGRAM,
        cls=_Settings,
        help=_HELP,
        rich_markup_mode=None,
        epilog=_EPILOG,
        add_completion=True,
        invoke_without_command=True,
        context_settings=_CONTEXT,
        pretty_exceptions_enable=False,
    )

    def settings(context: typer.Context, **values: Any) -> None:
        context.obj = Invocation(_given(SETTINGS, values), _given(SOURCES, values))
        if context.invoked_subcommand is None:
            raise typer.Exit(handlers.handle(context.obj))

    app.callback()(_with_signature(settings, "settings", _HELP, _settings_parameters()))
    groups = {group: _group(app, group) for group in GROUPS}
    for command in COMMANDS:
        parent = app if len(command.words) == 1 else groups[command.words[0]]
        parent.command(command.words[-1], cls=_Command, epilog=_COMMAND_EPILOG, short_help=_short(command))(
            _command(command)
        )
    return app


def _group(app: typer.Typer, name: str) -> typer.Typer:
    group = typer.Typer(cls=_Group, help=GROUPS[name], epilog=_COMMAND_EPILOG, rich_markup_mode=None)
    app.add_typer(group, name=name)
    return group


def _short(command: Command) -> str:
    """Return the help of a command for a list of commands: its beginning."""
    return command.help.partition(":")[0].partition(",")[0].partition(" (")[0].removesuffix(".")


def _command(command: Command) -> Callable[..., None]:
    def callback(context: typer.Context, **values: Any) -> None:
        invocation: Invocation = context.obj
        raise typer.Exit(
            handlers.handle(
                invocation.replace(
                    command=command.name,
                    options=_given(command.options, values),
                    operands=tuple(values.get(_OPERANDS) or ()),
                )
            )
        )

    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [context, *(_option(option, "Options") for option in command.options)]
    if command.operand:
        parameters.append(_argument(command.operand))
    return _with_signature(callback, command.name, command.help, parameters)


def run_app(arguments: Sequence[str]) -> int:
    """Run the application and return the exit code. A mistake is one line, without a usage text."""
    try:
        result = make_app()(list(arguments), standalone_mode=False, prog_name=PROGRAM)
    except _ArgumentError as error:
        complain(f"{error}\n")
        return 2
    except OSError as error:
        complain(f"standard output cannot be written: {error.strerror}\n")
        return 1
    return result if isinstance(result, int) else 0

"""typer_app: the Typer application. It answers a shell that completes by Typer, and --install-completion.

Its options are made from the declarations in settings/declared.py and settings/commands.py. It could run the
commands too: what it parses becomes an Invocation for the handlers, so that tests can compare it with
settings/go_flags.py. Arguments come in the canonical form `--name=value`, which Invocation.canonical()
returns. Pages of help are those of cli/help_page.py.
"""

from __future__ import annotations

import inspect
import keyword
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ..rules.istio import PROGRAM
from ..settings.commands import COMMANDS, GROUPS, Command, Operand
from ..settings.declared import BY_NAME, SETTINGS, SOURCES, Setting
from ..settings.go_flags import HELP, Invocation
from ..settings.texts import Given
from . import handlers
from .help_page import SUMMARY, described, short
from .streams import complain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def _option(setting: Setting) -> inspect.Parameter:
    """Return a setting as a parameter of a Typer callback. Booleans are strings, too: see go_flags.py.

    It may be given several times. Each value is checked, and the last one is used (of sources, all are).
    """
    variables = ", ".join(setting.variables) if setting.name in BY_NAME else ""
    option = typer.Option(
        f"--{setting.name}",
        *([f"-{setting.short}"] if setting.short else []),
        help=f"{described(setting)} [{variables}]" if variables else described(setting),
        metavar=setting.metavar,
        show_default=False,
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


def _settings_parameters() -> list[inspect.Parameter]:
    """Return the options of the command line itself: every setting that has a flag, files, and --version."""
    by_name, by_place = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    version = typer.Option("--version", "-V", help="Print the version.", callback=_version, is_eager=True)
    return [
        inspect.Parameter("context", by_place, annotation=typer.Context),
        *(_option(setting) for setting in SETTINGS if setting.has_flag),
        *(_option(source) for source in SOURCES),
        inspect.Parameter("version", by_name, default=False, annotation=Annotated[bool, version]),
    ]


def make_app() -> typer.Typer:
    """Make the application from the declarations."""
    app = typer.Typer(
        name=PROGRAM,
        help=SUMMARY,
        rich_markup_mode=None,
        add_completion=True,
        invoke_without_command=True,
        context_settings={"help_option_names": list(reversed(HELP))},
        pretty_exceptions_enable=False,
    )

    def settings(context: typer.Context, **values: Any) -> None:
        context.obj = Invocation(_given(SETTINGS, values), _given(SOURCES, values))
        if context.invoked_subcommand is None:
            raise typer.Exit(handlers.handle(context.obj))

    app.callback()(_with_signature(settings, "settings", SUMMARY, _settings_parameters()))
    groups = {group: _group(app, group) for group in GROUPS}
    for command in COMMANDS:
        parent = app if len(command.words) == 1 else groups[command.words[0]]
        parent.command(command.words[-1], short_help=short(command))(_command(command))
    return app


def _group(app: typer.Typer, name: str) -> typer.Typer:
    group = typer.Typer(help=GROUPS[name], rich_markup_mode=None)
    app.add_typer(group, name=name)
    return group


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
    parameters = [context, *(_option(option) for option in command.options)]
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

"""The entry point: read the command line and hand it on.

What goflags can read goes straight to its use case. Help, completion and --version are the Typer
application's, in cli.py, whose import takes longer than a whole run. Both read the same declarations, in
settings.py and commands.py, and tests hold that they understand the same.
"""

from __future__ import annotations

import gc
import os
import sys

from .settings.go_flags import read_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .settings.go_flags import Invocation


def main(arguments: Sequence[str] | None = None) -> int:
    """Run istio-iptables with the given arguments, by default the process's, and return the exit code."""
    return _main(arguments) if arguments is not None else _process(_main)


def _main(arguments: Sequence[str]) -> int:
    if "_ISTIO_IPTABLES_COMPLETE" in os.environ:
        from .cli.help_app import run_app

        return run_app([])
    return _dispatch(read_arguments(arguments))


def clean(arguments: Sequence[str] | None = None) -> int:
    """Run istio-clean-iptables: `istio-iptables cleanup`, other settings being checked but of no account."""
    return _clean(arguments) if arguments is not None else _process(_clean)


def _clean(arguments: Sequence[str]) -> int:
    invocation = read_arguments(arguments)
    mistakes = invocation.mistakes
    if invocation.command not in ("", "cleanup"):
        mistakes = (*mistakes, f"{invocation.command!r}: istio-clean-iptables takes no command")
    return _dispatch(invocation.replace(command="cleanup", options=(), operands=(), mistakes=mistakes))


def _process(command: Callable[[Sequence[str]], int]) -> int:
    """Run a command with the process's arguments, as all that this process does.

    Nobody's garbage is worth collecting then. The collector would look through all modules again and again
    while they are imported, and once more when the interpreter ends, which together takes a tenth of the run.
    """
    gc.disable()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller (>&-): what is printed goes nowhere
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # as long as we run
    try:
        return command(sys.argv[1:])
    finally:
        gc.freeze()


def _dispatch(invocation: Invocation) -> int:
    if invocation.meta and not invocation.mistakes:
        from .cli.help_app import run_app

        return run_app(invocation.canonical())
    from .cli.handlers import handle

    return handle(invocation)


if __name__ == "__main__":
    sys.exit(main())

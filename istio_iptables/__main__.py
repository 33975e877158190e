"""The entry point: read the command line and hand it on.

A plain call (settings, and at most a command without options of its own) goes straight to its use
case. Help, completion and everything else goes through the Typer application in cli.py, whose
import takes longer than the plain call itself; both read the same declarations in settings.py.
"""

from __future__ import annotations

import os
import sys

from .goflags import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .goflags import Invocation


def main(arguments: Sequence[str] | None = None) -> int:
    """Run istio-iptables with the given arguments, by default the process's, and return the exit code."""
    if sys.stdout is None:  # closed by the caller (>&-): what is printed goes nowhere
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # as long as the process
    if "_ISTIO_IPTABLES_COMPLETE" in os.environ:
        from .cli import run as run_application

        return run_application([])
    return _run(read(sys.argv[1:] if arguments is None else arguments))


def clean(arguments: Sequence[str] | None = None) -> int:
    """Run istio-clean-iptables: `istio-iptables cleanup`, other settings being checked but of no account."""
    invocation = read(sys.argv[1:] if arguments is None else arguments)
    mistakes = invocation.mistakes
    if invocation.command not in ("", "cleanup"):
        mistakes = (*mistakes, f"{invocation.command!r}: istio-clean-iptables takes no command")
    return _run(invocation.replace(command="cleanup", options=(), mistakes=mistakes))


def _run(invocation: Invocation) -> int:
    if invocation.meta or (invocation.options and not invocation.mistakes):
        from .cli import run as run_application

        return run_application(invocation.canonical())
    from .usecases import run

    return run(invocation)


if __name__ == "__main__":
    sys.exit(main())

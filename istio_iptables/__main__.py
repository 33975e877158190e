"""__main__: the entry points. They read the command line and call what answers it.

settings/go_flags.py reads every command line, and a command goes straight to its handler. Only what shells
ask to complete a line needs the Typer application of cli/typer_app.py, whose import takes longer than a whole
run. Both use the declarations in settings/declared.py and settings/commands.py, and tests check that both
understand them in the same way.
"""

from __future__ import annotations

import gc
import os
import sys

from .errors import INTERRUPTED
from .startup.c_modules import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .settings.go_flags import Invocation


def main(arguments: Sequence[str] | None = None) -> int:
    """Run istio-iptables with the given arguments, by default the process's, and return the exit code."""
    return _main(arguments) if arguments is not None else _process(_main)


def _main(arguments: Sequence[str]) -> int:
    if "_ISTIO_IPTABLES_COMPLETE" in os.environ:
        from .cli.typer_app import run_app

        return run_app([])
    if [*arguments] == ["--version"]:  # needs no declarations of settings
        from .cli.written import version

        return version()
    from .settings.go_flags import read_arguments  # the CNI plugin does without

    return _dispatch(read_arguments(arguments))


def clean(arguments: Sequence[str] | None = None) -> int:
    """Run istio-clean-iptables: `istio-iptables cleanup`. Other settings are checked, but have no effect."""
    return _clean(arguments) if arguments is not None else _process(_clean)


def _clean(arguments: Sequence[str]) -> int:
    from .settings.go_flags import read_arguments

    invocation = read_arguments(arguments)
    mistakes = invocation.mistakes
    if invocation.command not in ("", "cleanup"):
        mistakes = (*mistakes, f"{invocation.command!r}: istio-clean-iptables takes no command")
    return _dispatch(invocation.replace(command="cleanup", options=(), operands=(), mistakes=mistakes))


def cni() -> int:
    """Run istio-iptables-cni, the CNI plugin, which a container runtime calls with variables alone.

    The process ends here, with everything written: what the interpreter would do before it ends, freeing one
    object after the other, takes a twentieth of a call.
    """
    os._exit(_process(_cni))


#: The commands by the names that their programs have; all other names are that of istio-iptables.
_BY_NAME = {"istio-clean-iptables": clean, "istio-iptables-cni": cni}


def run_as(name: str) -> int:
    """Run the command whose program has a name, with the process's arguments; tools/launcher calls it."""
    return _BY_NAME.get(name, main)()


def _cni(_: Sequence[str]) -> int:
    from .cli.log import log
    from .cni.plugin import run

    return run(os.environ, log)


def _process(command: Callable[[Sequence[str]], int]) -> int:
    """Run a command with the process's arguments; the process does nothing else.

    The garbage collector is off (startup/__init__.py says why): the process ends before memory matters.
    """
    gc.disable()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller (>&-): discard what is printed
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # as long as we run
    status = INTERRUPTED
    try:
        if callable(signal.getsignal(signal.SIGINT)):  # else the caller ignores it
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            status = command(sys.argv[1:])
        finally:
            _ignore_ctrl_c()
            gc.freeze()
    except (ImportError, MemoryError, OSError) as error:  # before the command could report it
        from .remedies import program_not_loaded

        print(program_not_loaded(error), file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        pass  # before the command began, or after it was done: a command that Ctrl-C ends says so itself
    return status


def _ignore_ctrl_c() -> None:
    """Ignore Ctrl-C: what is done is done, and it could only end what the interpreter does last.

    It is blocked first: Python complains about one that comes while its handler is taken away.
    """
    while signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        try:
            if hasattr(signal, "pthread_sigmask"):
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:  # it came before the call
            continue


def _dispatch(invocation: Invocation) -> int:
    if invocation.meta and not invocation.mistakes:
        return _answer(invocation)
    from .cli.handlers import handle

    return handle(invocation)


def _answer(invocation: Invocation) -> int:
    """Answer what a flag asks about the command line itself."""
    from .cli.written import version, written
    from .settings.go_flags import HELP, VERSION

    if set(HELP).issuperset(invocation.meta):
        from .cli.help_page import page

        return written(page(invocation.command))
    if {*HELP, *VERSION}.issuperset(invocation.meta):
        return version()
    from .cli.typer_app import run_app

    return run_app(invocation.canonical())


if __name__ == "__main__":
    sys.exit(main())

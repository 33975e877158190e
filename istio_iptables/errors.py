"""errors: the exceptions that a user is told about, and the exit code of each."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


#: The exit code of a command that was asked to look, and found a difference or findings.
FOUND = 3
#: The exit code after Ctrl-C: 128 plus SIGINT, as shells report it.
INTERRUPTED = 130


class IstioIptablesError(Exception):
    """The base class of every error that this package raises intentionally.

    `str()` of it is the text for the user: one line per mistake, without a traceback. `exit_code` is the exit
    code of the command.
    """

    exit_code = 1


class SettingsError(IstioIptablesError):
    """Settings that cannot be used. Nothing has been changed. `mistakes` has every mistake that was found."""

    exit_code = 2

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))

    def __reduce__(self) -> tuple[type[SettingsError], tuple[tuple[str, ...]]]:
        """Pickle the attributes: by default pickle would pass `str()` of the error to the constructor."""
        return type(self), (self.mistakes,)


class SettingsWarning(UserWarning):
    """Settings that can be used, but have less effect than they look; `configure` issues it."""


class DumpError(IstioIptablesError):
    """What a program has printed about rules cannot be read: it is incomplete, or of another program."""


class KernelError(IstioIptablesError):
    """An error of the kernel or of a program that talks to it: its `cause`, and a `remedy` if known."""

    def __init__(self, cause: str, remedy: str = "") -> None:
        self.cause = cause
        self.remedy = remedy
        super().__init__(f"{cause}\n  what to do: {remedy}" if remedy else cause)

    def __reduce__(self) -> tuple[type[KernelError], tuple[str, str]]:
        """Pickle the attributes."""
        return type(self), (self.cause, self.remedy)


class Busy(KernelError):
    """Another process is in the way: what failed may succeed when it is done."""


class NotValidated(IstioIptablesError):
    """Redirection does not work, or could not be proven to."""

    exit_code = 126


class Differs(IstioIptablesError):
    """Rules of istio-iptables are in place but differ from the wanted ones, and --reconcile was not given."""

    exit_code = FOUND


def require_type(value: object, kind: type, what: str) -> None:
    """Raise TypeError unless a value is of a type; `what` says who takes what, for the message.

    For the library's functions: it names what was expected, where an AttributeError would come from inside.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{what}, not {type(value).__name__}")

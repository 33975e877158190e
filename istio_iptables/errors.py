"""Errors: what went wrong, in the user's words, and the exit code that it means (SPEC section 6)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class IstioIptablesError(Exception):
    """The base of every error that this package raises on purpose.

    `str()` of it is what a user reads: one line a mistake, no traceback. `exit_code` is what
    the command ends with.
    """

    exit_code = 1


class SettingsError(IstioIptablesError):
    """Settings that cannot be used; nothing has been touched. Holds every mistake found."""

    exit_code = 2

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))

    def __reduce__(self) -> tuple[type[SettingsError], tuple[tuple[str, ...]]]:
        """Let another process have it whole (pickle would hand `str()` of it to the constructor)."""
        return type(self), (self.mistakes,)


class KernelError(IstioIptablesError):
    """The kernel, or a tool that speaks to it, said no: `cause`, and the `remedy` if one is known."""

    def __init__(self, cause: str, remedy: str = "") -> None:
        self.cause = cause
        self.remedy = remedy
        super().__init__(f"{cause}\n  what to do: {remedy}" if remedy else cause)

    def __reduce__(self) -> tuple[type[KernelError], tuple[str, str]]:
        """Let another process have it whole."""
        return type(self), (self.cause, self.remedy)


class NotValidated(IstioIptablesError):
    """Redirection does not work, or could not be proven to."""

    exit_code = 126


class Differs(IstioIptablesError):
    """Rules of ours are in place that are not the wanted ones, and --reconcile was not given."""

    exit_code = 3

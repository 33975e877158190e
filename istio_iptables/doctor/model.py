"""model: what a check says."""

from __future__ import annotations

from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, Self, TypeAlias

    from ..errors import KernelError

    Status: TypeAlias = Literal["OK", "WARN", "FAIL"]

OK: Status = "OK"
#: A run may fail, or what it sets up may not be what was meant; also what could not be checked.
WARN: Status = "WARN"
#: A run fails, or what it sets up cannot work.
FAIL: Status = "FAIL"

#: The page that has a section for each check, under the check's name.
PAGE = "docs/doctor.md"


class Answer(Record):
    """What a check found: `finding` is one line, `details` are more, `remedy` is what to do about it."""

    status: Status
    finding: str
    remedy: str = ""
    details: tuple[str, ...] = ()


class Result(Record):
    """The Answer of the check of this name. Names are stable: programs and docs/doctor.md refer to them."""

    name: str
    status: Status
    finding: str
    remedy: str = ""
    details: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, answer: Answer) -> Self:
        """Return the result of a check."""
        return cls(name, answer.status, answer.finding, answer.remedy, answer.details)

    @property
    def anchor(self) -> str:
        """Where docs/doctor.md explains the check."""
        return f"{PAGE}#{self.name}"


def fine(finding: str, *details: str) -> Answer:
    """Return the answer for what is as it should be, or does not matter here."""
    return Answer(OK, finding, details=details)


def doubtful(finding: str, remedy: str, *details: str) -> Answer:
    """Return the answer for what may make a run fail."""
    return Answer(WARN, finding, remedy, details)


def bad(finding: str, remedy: str, *details: str) -> Answer:
    """Return the answer for what makes a run fail."""
    return Answer(FAIL, finding, remedy, details)


def refused(error: KernelError, *details: str) -> Answer:
    """Return the answer for what makes a run end with an error: its cause and its remedy."""
    return Answer(FAIL, error.cause, error.remedy, details)


def unchecked(why: str, remedy: str = "") -> Answer:
    """Return the answer for what could not be found out."""
    return Answer(WARN, f"could not be checked: {why}", remedy)

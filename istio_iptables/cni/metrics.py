"""metrics: how often ADD was called, how it ended and how long it took, as text for Prometheus.

The plugin is a process for each call, so the counts are in a file, which is a whole text in Prometheus'
exposition format at every moment: whoever serves it, or node-exporter's textfile collector, only reads it.
Each call writes a new file and renames it, under a lock on the directory. The directory belongs to a file
system in memory (/run), since counters may begin again when a machine starts.
"""

from __future__ import annotations

import os

from ..startup.record import Record
from .decision import REASONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: The media type of the text.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

CAPTURED, SKIPPED, FAILED = "captured", "skipped", "failed"
#: The upper limits of the histogram's buckets, in seconds.
BUCKETS = ("0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf")
#: How long to wait for other calls that count, in seconds; then this one is not counted.
_PATIENCE = 1.0

_PREFIX = "istio_iptables_cni_"
_SKIPS, _FAILURES, _SECONDS = f"{_PREFIX}skips_total", f"{_PREFIX}failures_total", f"{_PREFIX}add_seconds"


class Outcome(Record):
    """How a call of ADD ended: CAPTURED; SKIPPED with a reason; FAILED with a code as text."""

    result: str
    label: str
    seconds: float


class _Family(Record):
    """A metric: its type, its help, and the series that are there from the beginning."""

    name: str
    kind: str
    help: str
    series: tuple[str, ...]


_FAMILIES = (
    _Family(
        f"{_PREFIX}adds_total",
        "counter",
        "Calls of ADD by their result.",
        tuple(f'{_PREFIX}adds_total{{result="{result}"}}' for result in (CAPTURED, SKIPPED, FAILED)),
    ),
    _Family(
        _SKIPS,
        "counter",
        "Pods that get no rules, by reason.",
        tuple(f'{_SKIPS}{{reason="{reason}"}}' for reason in REASONS),
    ),
    _Family(_FAILURES, "counter", "Calls of ADD that failed, by the code that the runtime was given.", ()),
    _Family(
        _SECONDS,
        "histogram",
        "Duration of ADD, from the start of the plugin's work to its answer.",
        (
            *(f'{_SECONDS}_bucket{{le="{limit}"}}' for limit in BUCKETS),
            f"{_SECONDS}_sum",
            f"{_SECONDS}_count",
        ),
    ),
)


def text(path: str) -> str:
    """Return the text to serve; without a file all counts are zero. Raises OSError if it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return _text(_counts(file.read()))
    except FileNotFoundError:
        return _text({})


def count(path: str, outcome: Outcome) -> str:
    """Count a call in the file, and return why that could not be done, or nothing."""
    directory = os.path.dirname(path)
    try:
        lock = _opened(directory)
        try:
            if not _is_locked(lock):
                return f"{directory} is locked by another process"
            _replace(path, outcome)
        finally:
            os.close(lock)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _opened(directory: str) -> int:
    """Open a directory, which is made if it is not there."""
    try:
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _is_locked(descriptor: int) -> bool:
    """Lock an open directory, and tell whether that could be done in time."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        from .deadline import Deadline  # as a rule no other call counts now

    try:
        with Deadline(_PATIENCE, TimeoutError()):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except TimeoutError:
        return False
    return True


def _replace(path: str, outcome: Outcome) -> None:
    try:
        with open(path, encoding="utf-8") as file:
            counts = _counts(file.read())
    except (FileNotFoundError, UnicodeDecodeError):
        counts = {}
    for series, amount in _increments(outcome):
        counts[series] = counts.get(series, 0.0) + amount
    new = f"{path}.new"  # one name: the lock is held, and what a killed call left is overwritten
    with open(new, "w", encoding="utf-8") as file:
        file.write(_text(counts))
    os.replace(new, path)


def _increments(outcome: Outcome) -> Iterator[tuple[str, float]]:
    """Yield the series that a call adds to, and how much."""
    yield f'{_PREFIX}adds_total{{result="{outcome.result}"}}', 1
    if outcome.result == SKIPPED:
        yield f'{_SKIPS}{{reason="{outcome.label}"}}', 1
    elif outcome.result == FAILED:
        yield f'{_FAILURES}{{code="{outcome.label}"}}', 1
    for limit in BUCKETS:
        if outcome.seconds <= float(limit):
            yield f'{_SECONDS}_bucket{{le="{limit}"}}', 1
    yield f"{_SECONDS}_sum", outcome.seconds
    yield f"{_SECONDS}_count", 1


def _counts(content: str) -> dict[str, float]:
    """Return the value of each series. A line that is not one of ours is left out."""
    found: dict[str, float] = {}
    for line in content.splitlines():
        series, _, value = line.rpartition(" ")
        if series.startswith(_PREFIX):
            try:
                found[series] = float(value)
            except ValueError:
                continue
    return found


def _text(counts: Mapping[str, float]) -> str:
    lines = []
    for family in _FAMILIES:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        more = sorted(series for series in counts if series.startswith(f"{family.name}{{"))
        for series in dict.fromkeys((*family.series, *more)):
            lines.append(f"{series} {counts.get(series, 0.0):.15g}")
    return "".join(f"{line}\n" for line in lines)

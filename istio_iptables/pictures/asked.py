"""asked: a packet described in one text, with the options of `trace`, for a picture of its way.

>>> from istio_iptables.settings.facts import Facts
>>> asked("out --uid 1000 --to 10.1.2.3:80", Facts()).question.uid
1000
"""

from __future__ import annotations

from ..errors import SettingsError
from ..settings.packet_parsers import Endpoint
from ..startup.record import Record
from ..trace.packet import OPTIONS, mistakes_in, mistakes_in_endpoint, mistakes_in_way, question_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..rules.model import Cidr
    from ..settings.parsers import Names
    from ..trace.packet import Question

#: The options of `trace` that say which packet it is, and what of its way is wanted.
_OPTIONS = (*OPTIONS, "own", "follow", "endpoint", "proxy-runs-as")


class Asked(Record):
    """The packet, the pod's own addresses if they were given, and whether to go on through the proxy.

    `endpoint` and `runs_as` are what the proxy chooses then (see Choices in trace/follow.py).
    """

    text: str
    question: Question
    own: tuple[Cidr, ...] = ()
    follow: bool = False
    endpoint: Endpoint = Endpoint()
    runs_as: tuple[int, int] | None = None


def asked(text: str, names: Names) -> Asked:
    """Read `out|in` with the options of `trace`. Raises SettingsError with every mistake."""
    import shlex

    from ..settings.go_flags import read_arguments
    from ..settings.resolve import parse_options

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise SettingsError([f"--trace: {text!r}: {error}"]) from None
    invocation = read_arguments(["trace", *words])
    mistakes = list(invocation.mistakes)
    for given in (*invocation.settings, *invocation.sources):
        mistakes.append(
            f"{given.origin}: is a setting, not part of the packet: write it outside of the quotes"
        )
    for given in invocation.options:
        if given.setting.name not in _OPTIONS:
            mistakes.append(f"{given.origin}: says nothing about the packet (options: {_listed()})")
    mistakes += [f"{flag}: says nothing about the packet" for flag in invocation.meta]
    options, bad = parse_options("trace", invocation.options, names)
    mistakes += bad
    if mistakes:
        raise SettingsError([f"--trace: {mistake}" for mistake in mistakes])
    direction = invocation.operands[0]
    question = question_of(direction, options)  # type: ignore[arg-type]  # checked with the words
    mistakes = mistakes_in(question) + mistakes_in_way(question) + mistakes_in_endpoint(options["endpoint"])
    if not options["follow"]:
        for name in ("endpoint", "proxy-runs-as"):
            if any(given.setting.name == name for given in invocation.options):
                mistakes.append(f"--{name}: needs --follow beside it")
    if mistakes:
        raise SettingsError([f"--trace: {mistake}" for mistake in mistakes])
    return Asked(
        " ".join(words),
        question,
        options["own"],
        options["follow"],
        options["endpoint"],
        options["proxy-runs-as"],
    )


def _listed() -> str:
    return ", ".join(f"--{name}" for name in _OPTIONS)

"""Refutations are true: a packet for which the prover says that changed rules differ, is sent, and they do.

Rules of random settings are changed: a rule is dropped, swapped with the next one, made wider or narrower, or
given another target. The prover compares the changed rules, read back from the kernel, with the others. Each
packet that it shows is sent through the changed rules, and through the others. Where it finds no difference,
any packets are sent through both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Literal, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, reject
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from istio_iptables import Facts, Ruleset, build, configure
from istio_iptables.errors import SettingsError
from istio_iptables.interpreter.journey import World
from istio_iptables.interpreter.known import Known
from istio_iptables.interpreter.many import asked_about
from istio_iptables.interpreter.packet import Packet
from istio_iptables.interpreter.program import Program
from istio_iptables.interpreter.regions import Region
from istio_iptables.interpreter.verdict import Proxy
from istio_iptables.prove.compare import Difference, differences
from istio_iptables.prove.outcomes import outcomes, simplified
from istio_iptables.prove.space import DIRECTIONS, PHASES, Packets, packets
from istio_iptables.rules import model
from istio_iptables.trace.world import of_ruleset, proxy_of

from ..support import drawn_packets
from ..support.mutations import change, has_native_form
from ..support.our_rules import WRITERS, steps_of
from ..support.pod_settings import SERVERS, Settings
from ..support.pod_settings import settings as pod_settings
from ..support.refuting import from_another_port, seen_verdict, sendable, with_connection
from ..support.testbed import Setup, Testbed
from ..support.truth import alone, describe

#: As many packets are sent for one change, where the prover shows that many.
_MOST_SENT = 4
#: Any packets that are sent where it shows none.
_ANY = 8
#: As many changes are made: 25, and with the profile fuzz 500.
_MOST = hypothesis_settings().max_examples
_CHANGES = max(1, _MOST // 4 if _MOST < 1000 else _MOST // 2)
#: The sockets of a testbed listen on the default ports.
_FIXED = ("envoy-port", "inbound-capture-port")


Answer = Literal["equal", "different", "depends"]


class Tally:
    """Counts changes, and packets that were sent."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, changed: Changed, found: Answer, differs: bool) -> None:
        """Count a change: what the prover has found, and whether the kernel has had another verdict."""
        self.counts["changes"] += 1
        self.counts[f"{changed.about.partition(':')[0]}, {changed.writer}"] += 1
        self.counts["depends"] += found == "depends"
        self.counts["caught"] += differs and found == "different"
        self.counts["missed"] += differs and found == "equal"
        if differs and found == "equal":
            print(f"missed: {changed}")


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with Testbed() as made:
        yield made


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    made = Tally()
    yield made
    counts = made.counts
    print(dict(counts))
    assert _MOST < 1000 or counts["refutations sent"] >= 300, counts
    assert counts["caught"] >= 0.95 * (counts["caught"] + counts["missed"]), counts


class Changed(NamedTuple):
    """Rules with one change, and how the prover compares them with those before it."""

    before: Ruleset
    after: Ruleset
    writer: str
    proxy: Proxy
    family: model.Family
    about: str

    def __repr__(self) -> str:
        return f"{self.about} ({self.writer})"


def _changed(values: Settings, random: Random) -> Changed:
    facts = Facts(ipv4=True, ipv6=True, servers=SERVERS)
    chosen = {name: text for name, text in values.items() if name not in _FIXED}
    if random.randrange(2):
        chosen["istio-inbound-interception-mode"] = "TPROXY"
    writer = random.choice(WRITERS)
    try:
        config = configure(chosen, environment=facts)
    except SettingsError:
        reject()
    before = build(config)
    found = change(random, before)
    if found is None:
        reject()
    if writer == "native" and not has_native_form(found.ruleset):
        reject()
    return Changed(before, found.ruleset, writer, proxy_of(config), found.family, found.about)


def _without_change(changed: Changed, world: World) -> World:
    """Return the pod with the rules as they were before the change."""
    native = changed.writer == "native"
    known = Known(world.network)
    return world.replace(program=Program(tuple(of_ruleset(changed.before, known, native=native))))


class Shown(NamedTuple):
    """A packet that the prover shows, and its verdicts before and after the change."""

    packet: Packet
    before: str
    after: str

    def __repr__(self) -> str:
        return f"{describe(self.packet)}: {self.before}, {self.after} after the change"


def _compared(changed: Changed, before: World, after: World) -> Iterator[tuple[Packets, Difference]]:
    """Yield what the prover finds for packets of the family whose rules were changed."""
    for direction in DIRECTIONS:
        for phase in PHASES:
            every = packets((before, after), changed.family, direction, phase)
            found = [outcomes(simplified(world), every, changed.proxy) for world in (before, after)]
            for each in differences(*found):
                yield every, each


def _known(difference: Difference) -> Region:
    """Return the packets of a difference that does not depend on what is not known."""
    region = difference.region
    if "depends" in (difference.one.verdict.code, difference.other.verdict.code):
        return Region.nothing(region.space)
    sure = (box for box in region.boxes if not any(asked_about(field) for field, _ in box))
    return Region(region.space, tuple(sure))


def _shown(changed: Changed, before: World, after: World, tally: Tally) -> tuple[list[Shown], Answer]:
    """Return packets to send, the first of each pair of verdicts, and what the prover says of the change."""
    shown: dict[tuple[str, str, str], Shown] = {}
    found: Answer = "equal"
    for every, difference in _compared(changed, before, after):
        region = _known(difference)
        if not region:
            found = "depends" if found == "equal" else found
            continue
        found = "different"
        verdicts = str(difference.one.verdict), str(difference.other.verdict)
        packet = sendable(region, every, after.network)
        tally.counts["cannot be sent"] += packet is None
        if packet is not None:
            shown.setdefault((every.phase, *verdicts), Shown(packet, *verdicts))
    tally.counts["changes of which nothing can be sent"] += found == "different" and not shown
    return list(shown.values())[:_MOST_SENT], found


def _is(verdict: str, seen: str, packet: Packet, proxy: Proxy) -> bool:
    """Tell whether a verdict is the one that was seen."""
    if verdict == "loops":
        verdict = f"redirected {proxy.outbound_port}"
    if verdict.removeprefix("redirected ") == str(packet.destination_port):
        return True  # nothing tells it from what was sent there
    if verdict in _ENDED:  # who has sent it is told if no route is left for it
        return seen in _ENDED
    return verdict == seen


_ENDED = ("dropped", "rejected")


@hypothesis_settings(
    max_examples=_CHANGES,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@given(pod_settings(), st.integers(0, 1 << 62), st.data())
def test_what_refutes_behaves_as_foretold(
    bed: Testbed, tally: Tally, values: Settings, seed: int, data: st.DataObject
) -> None:
    # Hypothesis draws some numbers again and again.
    changed = _changed(values, Random(f"{seed} {sorted(values.items())}"))
    with _loaded(bed, changed.after, changed.writer) as after:
        before = _without_change(changed, after)
        shown, found = _shown(changed, before, after, tally)
        sent = [each.packet for each in shown] or _any_packets(data, before)
        now = _sent(bed, after, sent, changed.proxy)
    with _loaded(bed, changed.before, changed.writer) as before:
        then = _sent(bed, before, sent, changed.proxy)
    tally.add(changed, found, now != then)
    tally.counts["refutations sent"] += len(shown)
    for each, seen_now, seen_then in zip(shown, now, then, strict=False):
        assert _is(each.after, seen_now, each.packet, changed.proxy), (each, seen_now)
        assert _is(each.before, seen_then, each.packet, changed.proxy), (each, seen_then)


@contextmanager
def _loaded(bed: Testbed, ruleset: Ruleset, writer: str) -> Iterator[World]:
    """Have rules for a while; what the interpreter gets to know of the pod is read from the kernel."""
    try:
        bed.load(Setup(tuple(steps_of(ruleset, writer))))
        yield bed.world()
    finally:
        bed.unload()


def _any_packets(data: st.DataObject, world: World) -> list[Packet]:
    values = drawn_packets.values_of(world)
    drawn = [data.draw(drawn_packets.packets(values)) for _ in range(_ANY)]
    return [from_another_port(each, anyway=True) for each in drawn]


def _sent(bed: Testbed, world: World, sent: list[Packet], proxy: Proxy) -> list[str]:
    """Send packets, see that each goes the way that is foretold, and return their verdicts."""
    found = []
    for packet in sent:
        packet = from_another_port(packet)
        if packet.state == "ESTABLISHED":
            packet = with_connection(world, packet, proxy)
        compared = alone(bed, world, packet, proxy)
        assert not compared.differences, f"{bed.saved()}\n{compared}"
        found.append(seen_verdict(packet, compared.observed))
    return found

"""rules: what is in place, ours and others', and what a run would make of it."""

from __future__ import annotations

from ...change.actions import IPTABLES_LEGACY, IPTABLES_NFT, NFTABLES
from ...change.foreign import PREROUTING
from ...formats import NFT_FAMILIES, notices
from ...formats.iptables_args import rule_args
from ...formats.iptables_restore import joined
from ...remedies import tables_unreadable
from ...rules.model import InInterface
from ...startup.record import Record
from ..model import Answer, bad, doubtful, fine, refused, unchecked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ...change.actions import Live, Location
    from ...change.conflicts import Conflict
    from ...change.foreign import Neighbour
    from ...change.neighbours import Interference
    from ...errors import KernelError


def backend(chosen: str, why: str, problem: KernelError | None) -> Answer:
    """Check that a backend can be chosen: its name and why, or the error of the choice."""
    return refused(problem) if problem else fine(f"{chosen}: {why}" if chosen else why)


def two_backends(live: Live, others: Mapping[Location, Sequence[str]]) -> Answer:
    """Check that rules are in one place: those in legacy tables and in nf_tables are in force together.

    `others`: the tables with rules that this tool does not read, by location.
    """
    ours = live.locations
    places = {
        IPTABLES_LEGACY: [*_tables(live, IPTABLES_LEGACY), *others.get(IPTABLES_LEGACY, ())],
        "nf_tables": [
            *_tables(live, IPTABLES_NFT),
            *(f"inet {table.name}" for table in live.native),
            *others.get(IPTABLES_NFT, ()),
            *others.get(NFTABLES, ()),
        ],
    }
    used = {place: tables for place, tables in places.items() if tables}
    details = [f"{place}: {', '.join(tables)}" for place, tables in used.items()]
    if len(ours) > 1:
        return doubtful(
            f"rules of istio-iptables are in more than one place: {', '.join(ours)}",
            "`istio-iptables --reconcile` with the same settings leaves them in one place",
            *details,
        )
    if len(used) > 1:
        return doubtful(
            "legacy tables and nf_tables both have rules, and a packet meets both",
            "have all programs use the same variant (--force-iptables-binary, --native-nftables; "
            "`update-alternatives --config iptables` for others), if a rule seems to have no effect",
            *details,
        )
    return fine(f"rules are in {next(iter(used))} only" if used else "no rules are in place", *details)


def _tables(live: Live, location: Location) -> list[str]:
    """Return the tables with rules, by the names that the programs of their location give them."""
    tables = [t for t in live.tables.get(location, ()) if any(chain.rules for chain in t.chains)]
    if location == IPTABLES_LEGACY:
        return [f"{table.family} {table.name}" for table in tables]
    return [*(f"{NFT_FAMILIES[table.family]} {table.name}" for table in tables), *map(str, live.unreadable)]


def ambient_mode(conflicts: Sequence[Conflict]) -> Answer:
    """Check for Istio's ambient mode, in which nothing may be changed."""
    found = [each for each in conflicts if each.is_ambient]
    return _of_conflicts(found) if found else fine("not in place")


def chains_of_others(conflicts: Sequence[Conflict]) -> Answer:
    """Check for something foreign under the names of Istio's chains, which no run touches."""
    found = [each for each in conflicts if not each.is_ambient]
    return _of_conflicts(found) if found else fine("nothing foreign has the name of one of Istio's chains")


def _of_conflicts(found: Sequence[Conflict]) -> Answer:
    cause, remedy = notices.conflict(found)
    return bad(f"{cause}: a run changes nothing, and fails", remedy)


def unreadable_table(live: Live, location: Location | None, *, problem: KernelError | None) -> Answer:
    """Check for tables that iptables-nft cannot read; `problem` is the error of the choice of a backend."""
    if not live.unreadable:
        return fine("none")
    error = tables_unreadable(live.unreadable, owned=any(table.removal for table in live.unreadable))
    if problem and problem.cause == error.cause:
        return refused(error)
    instead = f"rules go to {location} instead" if location else "iptables-nft cannot be used"
    return doubtful(error.cause, error.remedy, instead)


def foreign_rules(found: Sequence[Interference]) -> Answer:
    """Check for foreign rules that keep traffic from the proxy."""
    if not found:
        return fine("none keeps traffic from the proxy")
    (finding, remedy), *others = map(notices.neighbour, found)
    return doubtful(finding, remedy, *(f"{other}: {what_to_do}" for other, what_to_do in others))


class Difference(Record):
    """How the rules in place compare with those of the settings: the names of the `parts` that differ."""

    in_place: bool
    parts: tuple[str, ...]


def rules_in_place(found: Difference | None, conflicts: Sequence[Conflict], *, replaces: bool) -> Answer:
    """Check for rules of other settings: a run that does not replace them ends with exit code 3."""
    if conflicts:
        return unchecked("what has the names of Istio's chains or tables is foreign")
    if found is None:
        return unchecked("no backend can be chosen to compare with")
    if not found.in_place:
        return fine("no rules of istio-iptables are in place")
    if not found.parts:
        return fine("they are those of the settings")
    if replaces:
        return fine("they differ from those of the settings, and the run replaces them", *found.parts)
    return bad(
        "the rules of istio-iptables in place differ from those of the settings: a run changes nothing, and "
        "ends with exit code 3",
        "--reconcile replaces them (`istio-iptables diff` with the same settings shows how they differ)",
        *found.parts,
    )


def to_loopback(foreign: Iterable[Neighbour]) -> tuple[tuple[str, str], ...]:
    """Return the foreign rules that send what comes in to 127.0.0.0/8, each with the table that it is in."""
    found = []
    for table in foreign:
        steps = [(base.name, step) for base in table.bases if base.hook == PREROUTING for step in base.steps]
        seen: set[str] = set()
        while steps:
            chain, step = steps.pop(0)
            new = [name for name in step.chains if name not in seen]
            seen.update(new)
            steps += [(name, called) for name in new for called in table.steps(name)]
            if step.to.startswith("127.") and InInterface("lo") not in step.matches:
                words = step.words if isinstance(step.words, str) else joined(rule_args(step.words))
                found.append((f"{chain}: {words}", table.where))
    return tuple(found)

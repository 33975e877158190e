"""For any settings the rules are the same: by libiptc, iptables-legacy-restore and iptables-nft-restore.

One namespace a backend, for a whole module: an example ends with a cleanup, so the next one finds the
namespace empty. What iptables-save prints is compared with tests/support/oracle.py, which shares nothing with
the package.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import example, given, note
from hypothesis import strategies as st

from istio_iptables import Facts, Ruleset, build, configure, render
from istio_iptables.kernel.iptables_command import IptablesCommand
from istio_iptables.kernel.xtables.libiptc import Libiptc
from istio_iptables.rules.model import TABLES, Table
from tests.support.agreeing import Location, Pod, Settings, properties
from tests.support.oracle import expected, ipv6_is_on
from tests.support.saved import declared_chains, normalise_save
from tests.support.strategies import environments, settings

from ..support.scratch import BUILTIN_CHAINS, CHAINS, FAMILIES, KERNEL, Family, Scratch, is_owned

pytestmark = KERNEL

Rules = Mapping[tuple[str, str], list[str]]


@pytest.fixture(scope="module")
def locations() -> Iterator[list[Location]]:
    backends: list[Libiptc | IptablesCommand] = [
        Libiptc(),
        IptablesCommand("iptables-legacy"),
        IptablesCommand("iptables-nft"),
    ]
    with Scratch() as one, Scratch() as two, Scratch() as three:
        found = [
            Location(backend.name, backend, scratch)
            for backend, scratch in zip(backends, (one, two, three), strict=True)
        ]
        yield found
        for location in found:
            location.backend.close()


def rules(values: Settings, pod: Pod) -> tuple[Ruleset, Rules]:
    """Return what the package makes of settings, and what the oracle says."""
    ipv4, ipv6, servers = pod
    facts = Facts(ipv4=ipv4, ipv6=ipv6, servers=tuple(servers))
    on = ipv6_is_on(values, has_ipv4=ipv4, has_ipv6=ipv6)
    want = expected(values, ipv6=on, dns_servers=servers)
    return build(configure(values, environment=facts)), want


def changes() -> st.SearchStrategy[tuple[Settings, Settings]]:
    """Two sets of settings: as different as can be, or one with a few changes to the other."""
    few = st.tuples(settings(), settings(), st.sets(st.integers(0, 30), max_size=4)).map(
        lambda three: (
            three[0],
            {**three[0], **{n: v for i, (n, v) in enumerate(sorted(three[1].items())) if i in three[2]}},
        )
    )
    return st.tuples(settings(), settings()) | few


def of_family(want: Rules, family: Family) -> dict[str, list[str]]:
    return {table: lines for (of, table), lines in sorted(want.items()) if of == family}


def chains_of(tables: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """SPEC section 3: a chain exists only if it has a rule."""
    found = {table: sorted({line.split()[1] for line in lines} & CHAINS) for table, lines in tables.items()}
    return {table: chains for table, chains in found.items() if chains}


# --- alone ----------------------------------------------------------------------------------


@properties(1.5)
@given(both=changes(), pod=environments())
# A rule that has to go appears twice: it is the second that goes.
@example(
    both=({"istio-exclude-interfaces": "eth1,eth2,eth1"}, {"istio-exclude-interfaces": "eth1,eth2"}),
    pod=(True, True, []),
)
# A new rule belongs after an owned one that stays, though the last owned one is deleted.
@example(
    both=(
        {"istio-inbound-interception-mode": "TPROXY", "kube-virt-interfaces": "a+,eth0,a+"},
        {"kube-virt-interfaces": "eth0"},
    ),
    pod=(True, True, []),
)
def test_backends_and_oracle_agree_from_nothing_to_one_to_another_to_nothing(
    locations: list[Location], both: tuple[Settings, Settings], pod: Pod
) -> None:
    """apply, nothing to do, reconcile = fresh, nothing to do, cleanup = nothing, with every backend."""
    steps = [rules(values, pod) for values in both]
    for location in locations:
        with location.scratch.inside():
            try:
                _walk(location, steps)
            except BaseException:
                location.empty()
                raise


def _walk(location: Location, steps: Sequence[tuple[Ruleset, Rules]]) -> None:
    live: dict[str, Mapping[str, Table]] = {family: {} for family in FAMILIES}
    for number, (wanted, want) in enumerate([*steps, (Ruleset(), {})]):
        for family in FAMILIES:
            here = f"{location.name}, {family}, step {number}"
            if number == 0 and isinstance(location.backend, IptablesCommand):
                # What --dry-run shows is what is in place, to the letter: no edit, but the rendered script.
                location.command(family, "restore", "--noflush", stdin=_script(wanted, family))
            else:
                location.edit(live[family], wanted, family)
            if number > 0 and not of_family(want, family) and not live[family]:
                continue  # there was nothing and there is to be nothing
            saved = location.save(family)
            tables = of_family(want, family)
            assert normalise_save(saved) == tables, here
            assert declared_chains(saved) == chains_of(tables), here
            assert "[0:0]" in saved or not saved
            live[family] = location.read(family, saved)
            assert location.nothing_to_do(live[family], wanted, family), here


def _script(wanted: Ruleset, family: Family) -> str:
    return render(wanted, "restore", [family])


# --- among foreign rules -----------------------------------------------------------------

#: Rules that anybody may have, in any of the three tables.
ANYWHERE = [
    "-j ACCEPT",
    "",  # without a target: it counts
    "-p tcp -m tcp --dport 22 -j RETURN",
    "-p tcp -m tcp --tcp-flags FIN,SYN SYN -j RETURN",
    "-p tcp -j RETURN",
    "-m comment --comment ISTIO_OUTPUT -j RETURN",
    '-m comment --comment "jumps to ISTIO_OUTPUT -j ISTIO_OUTPUT" -j RETURN',
    '-m comment --comment "about istio-iptables and more" -j ACCEPT',
    "-m comment --comment istio-iptablesX -j ACCEPT",
    '-m comment --comment "istio-iptables " -j ACCEPT',
    '-m comment --comment "quote \\" and \\\\ and \'" -j RETURN',
    "-j ISTIOLIKE",
    "-p udp -j ISTIOLIKE",
    "-g ISTIO_OUTPUT_MINE",
    "-m limit --limit 3/hour -j RETURN",
    "-m statistic --mode random --probability 0.50000000000 -j ACCEPT",
    "-m mark --mark 0x1/0xff -j RETURN",
    "-p tcp -m multiport --dports 1,2:5 -j ACCEPT",
    "-m conntrack --ctstate INVALID -j RETURN",
    "-m conntrack --ctstate RELATED,ESTABLISHED,UNTRACKED -j ACCEPT",
    "-m addrtype --dst-type LOCAL -j RETURN",
    "-m u32 --u32 0x0=0x0 -j RETURN",
    "-p 132 -j RETURN",
]
BY_FAMILY = {
    "ipv4": [
        "-d 10.0.0.0/8 -j ACCEPT",
        "! -s 192.0.2.1/32 -j RETURN",
        "-p icmp -m icmp --icmp-type 8 -j RETURN",
    ],
    "ipv6": ["-d fd00::/8 -j ACCEPT", "! -s 2001:db8::1/128 -j RETURN", "-p ipv6-icmp -j RETURN"],
}
# Some equal owned rules but for the comment: without it they are foreign.
BY_CHAIN = {
    "PREROUTING": ["-i eth0 -j RETURN", "! -i lo -j ISTIOLIKE", "-i eth1 -j RETURN", "-i eth+ -j RETURN"],
    "OUTPUT": [
        "-o eth1 -j RETURN",
        "! -o lo -j RETURN",
        "-o lo -p tcp -m mark --mark 0x53c -j RETURN",
        "-m owner --uid-owner 0-999 -j RETURN",
        "-m owner --socket-exists -j ISTIOLIKE",
    ],
    "ISTIOLIKE": [],
    "ISTIO_OUTPUT_MINE": ["-j ISTIOLIKE"],
}
BY_TABLE = {
    "nat": ["-p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080", "-p udp -j REDIRECT"],
    "mangle": [
        "-m conntrack --ctstate INVALID -j DROP",
        "-j MARK --set-xmark 0x1/0xff",
        "-p tcp -m mark --mark 0x53c -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
        "-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff",
    ],
    "raw": ["-j CT --notrack", "-j CT --zone 1"],
}


@dataclass(frozen=True)
class Foreign:
    """A rule of another program: its position, from 0.0 (the head of its chain) to 1.0 (the end)."""

    family: Family
    table: str
    chain: str
    rule: str
    where: float
    packets: int
    bytes: int


@st.composite
def foreign_rules(draw: st.DrawFn) -> Foreign:
    family = draw(st.sampled_from(FAMILIES))
    table = draw(st.sampled_from(sorted(BY_TABLE)))
    chain = draw(st.sampled_from(sorted(BY_CHAIN)))
    rule = draw(st.sampled_from([*ANYWHERE, *BY_FAMILY[family], *BY_CHAIN[chain], *BY_TABLE[table]]))
    if (
        chain not in BUILTIN_CHAINS
        and ("ISTIOLIKE" in rule or "-g " in rule)
        and chain != "ISTIO_OUTPUT_MINE"
    ):
        rule = "-j RETURN"  # no loops
    if chain == "ISTIO_OUTPUT_MINE" and "-g " in rule:
        rule = "-j ISTIOLIKE"
    where = draw(st.sampled_from([0.0, 1.0]) | st.floats(0, 1))
    packets = draw(st.integers(0, 2**40))
    size = draw(st.integers(packets, 2**50)) if packets else 0
    return Foreign(family, table, chain, rule, where, packets, size)


def insert_foreign(location: Location, family: Family, found: Sequence[Foreign], saved: str) -> None:
    """Put rules into chains as they are, owned ones included, with counters."""
    lengths = Counter(
        (table, line.split()[1])
        for table, lines in _lines_by_table(saved).items()
        for line in (re.sub(r"^\[\d+:\d+\] ", "", line) for line in lines)
        if line.startswith("-A ")
    )
    declared = declared_chains(saved)
    script = []
    for table in TABLES:
        mine = [rule for rule in found if (rule.family, rule.table) == (family, table)]
        if not mine:
            continue
        new = {"ISTIOLIKE", "ISTIO_OUTPUT_MINE"} - set(declared.get(table, []))
        script += [f"*{table}", *(f":{chain} - [0:0]" for chain in sorted(new))]
        for rule in mine:
            position = 1 + round(rule.where * lengths[table, rule.chain])
            lengths[table, rule.chain] += 1
            counters = f"[{rule.packets}:{rule.bytes}]"
            script.append(f"{counters} -I {rule.chain} {position} {rule.rule}")
        script.append("COMMIT")
    if script:
        location.command(family, "restore", "--noflush", "--counters", stdin="\n".join(script) + "\n")


def _lines_by_table(saved: str) -> dict[str, list[str]]:
    tables: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            lines = tables.setdefault(line[1:], [])
        elif line != "COMMIT":
            lines.append(line)
    return tables


def foreign_lines(saved: str) -> dict[str, list[str]]:
    """Return foreign rules, with counters and policies, in order; empty tables left out."""
    tables = {
        table: [line for line in lines if not is_owned(line)]
        for table, lines in _lines_by_table(saved).items()
    }
    return {table: lines for table, lines in tables.items() if any("-A " in line for line in lines)}


def our_rules(saved: str) -> dict[str, list[str]]:
    """Return owned rules as tests/support/oracle.py writes them."""
    return normalise_save("".join(f"{line}\n" for line in saved.splitlines() if not _is_foreign_rule(line)))


def _is_foreign_rule(line: str) -> bool:
    return "-A " in line and not is_owned(line)


@properties(1)
@given(
    both=changes(),
    pod=environments(),
    before=st.lists(foreign_rules(), max_size=8),
    between=st.lists(foreign_rules(), max_size=8),
)
def test_foreign_rules_survive_byte_for_byte(
    locations: list[Location],
    both: tuple[Settings, Settings],
    pod: Pod,
    before: list[Foreign],
    between: list[Foreign],
) -> None:
    """Foreign rules before, between and after owned ones: apply, reconcile and cleanup leave them alone."""
    first, second = (rules(values, pod) for values in both)
    for location in locations:
        with location.scratch.inside():
            try:
                for family in FAMILIES:
                    _among_foreign(location, family, first, second, before, between)
            finally:
                location.empty()


def _among_foreign(
    location: Location,
    family: Family,
    first: tuple[Ruleset, Rules],
    second: tuple[Ruleset, Rules],
    before: Sequence[Foreign],
    between: Sequence[Foreign],
) -> None:
    insert_foreign(location, family, before, "")
    alone = location.save(family)
    location.edit(location.read(family, alone), first[0], family)
    saved = location.save(family)
    assert foreign_lines(saved) == foreign_lines(alone)
    assert our_rules(saved) == of_family(first[1], family)
    insert_foreign(location, family, between, saved)
    mixed = location.save(family)
    note(f"{location.name} {family}\n{mixed}")
    assert our_rules(mixed) == of_family(first[1], family), (
        "foreign rules of the test must not look like owned ones"
    )
    assert location.nothing_to_do(location.read(family, mixed), first[0], family), (
        "foreign rules are no difference"
    )
    location.edit(location.read(family, mixed), second[0], family)
    changed = location.save(family)
    note(f"changed\n{changed}")
    assert foreign_lines(changed) == foreign_lines(mixed)
    assert our_rules(changed) == of_family(second[1], family)
    live = location.read(family, changed)
    assert location.nothing_to_do(live, second[0], family)
    location.edit(live, Ruleset(), family)
    left = location.save(family)
    assert foreign_lines(left) == foreign_lines(mixed)
    assert our_rules(left) == {}
    assert not {chain for chains in declared_chains(left).values() for chain in chains} & CHAINS


def test_owned_rules_keep_their_order_around_foreign_ones(locations: list[Location]) -> None:
    """A new rule goes next to its neighbours, not to the end after a foreign one."""
    first, _ = rules({}, (True, False, []))
    second, _ = rules({"istio-exclude-interfaces": "eth7"}, (True, False, []))
    for location in locations:
        with location.scratch.inside():
            try:
                location.edit({}, first, "ipv4")
                foreign = Foreign("ipv4", "nat", "OUTPUT", "-p tcp -j RETURN", 1.0, 5, 300)
                insert_foreign(location, "ipv4", [foreign], location.save("ipv4"))
                location.edit(location.read("ipv4", location.save("ipv4")), second, "ipv4")
                output = [line for line in location.save("ipv4").splitlines() if "-A OUTPUT" in line]
                assert [line.partition("] ")[2] for line in output] == [
                    "-A OUTPUT -o eth7 -m comment --comment istio-iptables -j RETURN",
                    "-A OUTPUT -j ISTIO_OUTPUT",
                    "-A OUTPUT -p tcp -j RETURN",
                ]
                assert output[-1].startswith("[5:300]")
            finally:
                location.empty()


def test_a_new_rule_goes_to_where_the_last_owned_one_was(locations: list[Location]) -> None:
    """Not to where the first was: an owned RETURN before a foreign rule would disable that."""
    first, _ = rules({"kube-virt-interfaces": "vm0"}, (True, False, []))
    second, _ = rules({"istio-inbound-ports": "", "istio-exclude-interfaces": "eth1"}, (True, False, []))
    for location in locations:
        with location.scratch.inside():
            try:
                location.edit({}, first, "ipv4")
                foreign = Foreign("ipv4", "nat", "PREROUTING", "-p udp -j RETURN", 0.7, 5, 300)
                insert_foreign(location, "ipv4", [foreign], location.save("ipv4"))
                location.edit(location.read("ipv4", location.save("ipv4")), second, "ipv4")
                found = [line for line in location.save("ipv4").splitlines() if "-A PREROUTING" in line]
                assert [line.partition("] ")[2] for line in found] == [
                    "-A PREROUTING -p udp -j RETURN",
                    "-A PREROUTING -i eth1 -m comment --comment istio-iptables -j RETURN",
                ]
            finally:
                location.empty()


@properties(0.3)
@given(values=settings(), pod=environments())
def test_rules_with_comments_are_read_back_equal(
    locations: list[Location], values: Settings, pod: Pod
) -> None:
    """--rule-comments: nothing to do the second time, and cleanup leaves nothing."""
    wanted, want = rules(values, pod)
    commented, _ = rules(values, pod)
    facts = Facts(ipv4=pod[0], ipv6=pod[1], servers=tuple(pod[2]))
    commented = build(configure({**values, "rule-comments": "true"}, environment=facts))
    for location in locations:
        with location.scratch.inside():
            try:
                for family in FAMILIES:
                    location.edit({}, commented, family)
                    saved = location.save(family)
                    assert location.nothing_to_do(location.read(family, saved), commented, family)
                    without = re.sub(r' -m comment --comment (\w\S*|"[^"]*")', "", saved)
                    plain = {
                        table: [re.sub(r" -m comment --comment \S+", "", line) for line in lines]
                        for table, lines in of_family(want, family).items()
                    }
                    assert normalise_save(without) == plain
                    location.edit(location.read(family, saved), Ruleset(), family)
                    assert normalise_save(location.save(family)) == {}
            except BaseException:
                location.empty()
                raise
    assert wanted != commented or not wanted.tables


def test_a_chain_that_a_foreign_chain_jumps_to_stays_empty(locations: list[Location]) -> None:
    """The kernel refuses to remove the chain, and the rule is foreign; everything else is removed."""
    wanted, _ = rules({}, (True, False, []))
    for location in locations:
        with location.scratch.inside():
            try:
                location.edit({}, wanted, "ipv4")
                script = (
                    "*nat\n:MINE - [0:0]\n-A MINE -p udp -j ISTIO_OUTPUT\n-A MINE -g ISTIO_REDIRECT\nCOMMIT\n"
                )
                location.command("ipv4", "restore", "--noflush", stdin=script)
                location.edit(location.read("ipv4", location.save("ipv4")), Ruleset(), "ipv4")
                left = location.save("ipv4")
                assert normalise_save(left) == {
                    "nat": ["-A MINE -p udp -j ISTIO_OUTPUT", "-A MINE -g ISTIO_REDIRECT"]
                }
                assert declared_chains(left) == {"nat": ["ISTIO_OUTPUT", "ISTIO_REDIRECT", "MINE"]}
                live = location.read("ipv4", left)
                assert location.nothing_to_do(live, Ruleset(), "ipv4")
                location.edit(live, wanted, "ipv4")
                assert location.nothing_to_do(location.read("ipv4", location.save("ipv4")), wanted, "ipv4")
            finally:
                location.empty()

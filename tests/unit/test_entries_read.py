"""Entries: the kernel's structures as typed rules, those that this project writes and those of others."""

from __future__ import annotations

import struct
from ctypes import sizeof
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from istio_iptables.api import build, configure
from istio_iptables.kernel.xtables.entries import Unsupported, decode, encode
from istio_iptables.rules.istio import TAG
from istio_iptables.rules.model import (
    ACCEPT,
    DROP,
    RETURN,
    Cidr,
    Comment,
    ConnectionMark,
    ConntrackState,
    ConntrackZone,
    Counters,
    Destination,
    DestinationPort,
    DestinationPorts,
    ForeignMatch,
    ForeignTarget,
    GidOwner,
    InInterface,
    Jump,
    Mark,
    Match,
    OutInterface,
    PortRange,
    Redirect,
    RestoreMark,
    Rule,
    SaveMark,
    SetMark,
    Source,
    SourcePort,
    Target,
    TProxy,
    Transport,
    UidOwner,
    Verdict,
)
from istio_iptables.rules.ownership import is_owned_rule, is_tagged
from istio_iptables.settings.facts import Facts
from tests.support import strategies
from tests.support.cases import all_cases
from tests.support.kernel_structures import ENTRIES, Entry, IptEntry, XtEntryMatch

if TYPE_CHECKING:
    from istio_iptables.rules.model import Family
FAMILIES = pytest.mark.parametrize("family", ["ipv4", "ipv6"])
TCP, UDP = Transport("tcp"), Transport("udp")


# --- there and back ---------------------------------------------------------------------------


CHAINS = frozenset({"ISTIO_OUTPUT", "ISTIO_IN_REDIRECT", "A_CHAIN_OF_TWENTY_NINE_LETTE"})


def target_name(target: Target) -> str:
    """What libiptc calls the target of an entry."""
    if isinstance(target, Jump):
        return target.chain
    if isinstance(target, Verdict):
        return target.name
    names: dict[type, str] = {Redirect: "REDIRECT", SetMark: "MARK", TProxy: "TPROXY", ConntrackZone: "CT"}
    return names.get(type(target), "CONNMARK")


def there_and_back(rule: Rule, family: Family) -> Rule:
    return decode(encode(rule, family), target_name(rule.target), family, CHAINS)


def words32() -> st.SearchStrategy[int]:
    return st.integers(0, 2**32 - 1)


def port_ranges() -> st.SearchStrategy[PortRange]:
    pairs = st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(sorted)
    return pairs.filter(lambda pair: pair != [0, 65535]).map(lambda pair: PortRange(*pair))


@st.composite
def networks(draw: st.DrawFn, family: Family) -> Cidr:
    bits = 32 if family == "ipv4" else 128
    prefix = draw(st.integers(1, bits))
    return Cidr(4 if bits == 32 else 6, draw(st.integers(0, 2**prefix - 1)) << (bits - prefix), prefix)


@st.composite
def rules(draw: st.DrawFn, family: Family) -> Rule:
    """Any rule of parts that this tool writes."""
    negated = st.booleans()
    matches: list[Match] = []
    names = strategies.interfaces().filter(lambda name: name != "+")
    for kind in (InInterface, OutInterface):
        if draw(st.booleans()):
            matches.append(kind(draw(names), draw(negated)))
    for place in (Source, Destination):
        if draw(st.booleans()):
            matches.append(place(draw(networks(family)), draw(negated)))
    if draw(st.booleans()):
        matches.append(Transport(draw(st.sampled_from(["tcp", "udp"])), draw(negated)))
        for side in (SourcePort, DestinationPort):
            if draw(st.booleans()):
                matches.append(side(draw(port_ranges()), draw(negated)))
    states = st.frozensets(st.sampled_from(["INVALID", "NEW", "RELATED", "ESTABLISHED"]), min_size=1)
    text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60)
    marks = st.tuples(words32(), words32(), negated)
    others: list[st.SearchStrategy[Match]] = [
        st.builds(UidOwner, words32(), negated),
        st.builds(GidOwner, words32(), negated),
        marks.map(lambda values: Mark(*values)),
        marks.map(lambda values: ConnectionMark(*values)),
        st.builds(ConntrackState, states, negated),
        st.builds(Comment, text),
        st.builds(DestinationPorts, st.lists(port_ranges(), min_size=1, max_size=7).map(tuple), negated),
    ]
    matches += draw(st.lists(st.one_of(others), max_size=4, unique=True))
    targets: list[st.SearchStrategy[Target]] = [
        st.sampled_from([ACCEPT, DROP, RETURN, SaveMark(), RestoreMark()]),
        st.builds(Jump, st.sampled_from(sorted(CHAINS)), st.booleans()),
        st.builds(Redirect, st.integers(0, 65535)),
        st.builds(SetMark, words32(), words32()),
        st.builds(TProxy, st.integers(0, 65535), words32()),
        st.builds(ConntrackZone, st.integers(0, 65535)),
    ]
    counters = st.builds(Counters, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
    return Rule(tuple(draw(st.permutations(matches))), draw(st.one_of(targets)), counters=draw(counters))


@FAMILIES
@settings(max_examples=settings().max_examples * 2)
@given(data=st.data())
def test_any_rule_survives(family: Family, data: st.DataObject):
    rule = data.draw(rules(family))
    found = there_and_back(rule, family)
    assert found == rule
    assert found.counters == rule.counters
    assert encode(found, family) == encode(rule.replace(matches=found.matches), family)


@FAMILIES
def test_all_ports(family: Family):
    every = PortRange(0, 65535)
    never = Rule((TCP, SourcePort(every, True), DestinationPort(every, True)), RETURN)
    assert there_and_back(never, family) == never
    always = Rule((TCP, SourcePort(every), DestinationPort(every)), RETURN)
    assert there_and_back(always, family) == Rule((TCP,), RETURN), "which is no match at all"


@FAMILIES
@settings(max_examples=settings().max_examples // 2)
@given(data=st.data())
def test_every_entry_is_one_that_the_kernel_would_take(family: Family, data: st.DataObject):
    rule = data.draw(rules(family))
    found = Entry(encode(rule, family), family)
    assert found.target.name == target_name(rule.target)
    ports = any(isinstance(match, (SourcePort, DestinationPort)) for match in rule.matches)
    assert (found.matches[:1] != [] and found.matches[0].name in ("tcp", "udp")) == ports
    inverting = sum(
        {InInterface: 1, OutInterface: 2, Source: 8, Destination: 16, Transport: 64}.get(type(match), 0)
        for match in rule.matches
        if getattr(match, "negated", False)
    )
    assert found.ip.invflags == inverting


@given(strategies.settings())
@example({"istio-exclude-interfaces": "eth1,fourteen-lette+", "rule-comments": "true"})
def test_every_rule_of_the_policy_survives(chosen: dict[str, str]):
    wanted = build(configure(chosen, environment=Facts(False, True, ("10.0.0.1", "fd00::1"))))
    for table, _, rule in wanted.rules():
        names = frozenset(chain.name for chain in table.chains)
        found = decode(encode(rule, table.family), target_name(rule.target), table.family, names)
        assert found == rule
        assert is_owned_rule(found) == is_owned_rule(rule)


# --- what others wrote ------------------------------------------------------------------------


def patched(rule: Rule, at: int, value: bytes, family: Family = "ipv4") -> bytes:
    entry = bytearray(encode(rule, family))
    entry[at : at + len(value)] = value
    return bytes(entry)


PLAIN = Rule((TCP, DestinationPort(PortRange(80, 80)), Comment(TAG)), RETURN)
HEADER, FIRST = sizeof(XtEntryMatch), sizeof(IptEntry)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (80, b"\x01\x00"),  # -p icmp
        (82, b"\x01"),  # -f
        (13, b"\x00\xff\x00"),  # a mask with gaps, as part of --dst… and --src
        (FIRST + HEADER + 8, b"\x01"),  # --tcp-option
        (FIRST + HEADER + 9, b"\x3f\x02"),  # --tcp-flags
        (FIRST + 2, b"sctp\0"),  # a match that this tool does not know
        (FIRST + 31, b"\x07"),  # a revision that it does not know
    ],
)
def test_foreign_matches_are_kept_apart_from_their_comments(at: int, value: bytes):
    rule = PLAIN.replace(matches=(Destination(Cidr(4, 0x0A000000, 8)), *PLAIN.matches))
    entry = patched(rule, at, value)
    found = decode(entry, "RETURN", "ipv4", CHAINS)
    foreign, comment = found.matches
    assert isinstance(foreign, ForeignMatch)
    assert comment == Comment(TAG)
    assert is_tagged(found)
    assert found.target == RETURN
    assert decode(entry, "RETURN", "ipv4", CHAINS) == found
    assert decode(encode(rule, "ipv4"), "RETURN", "ipv4", CHAINS) != found
    assert encode(found, "ipv4") == entry, "it is put back as it was"


def test_foreign_flags_of_ipv6():
    found = decode(patched(PLAIN, 131, b"\x03", "ipv6"), "RETURN", "ipv6", CHAINS)  # --tos beside -p
    assert isinstance(found.matches[0], ForeignMatch)


@pytest.mark.parametrize(
    ("match", "at", "value"),
    [
        (UidOwner(5), 4, b"\x09"),  # --uid-owner 5-9
        (UidOwner(5), 16, b"\x03"),  # --uid-owner with --gid-owner
        (UidOwner(5), 16, b"\x04"),  # --socket-exists
        (DestinationPorts((PortRange(1, 1),)), 0, b"\x00"),  # --sports
        (ConntrackState(frozenset({"NEW"})), 146, b"\x03\x00"),  # --ctproto too
        (ConntrackState(frozenset({"NEW"})), 150, b"\x48\x00"),  # --ctstate NEW,SNAT or so
    ],
    ids=str,
)
def test_matches_used_as_this_tool_does_not(match: Match, at: int, value: bytes):
    found = decode(patched(Rule((match,), RETURN), FIRST + HEADER + at, value), "RETURN", "ipv4", CHAINS)
    assert [type(part) for part in found.matches] == [ForeignMatch]


@all_cases(
    ("target", "at", "value"),
    [
        (Redirect(80), 4, b"\x06"),  # --random
        (Redirect(80), 18, b"\x00\x51"),  # --to-ports 80-81
        (Redirect(80), 0, b"\x02"),  # two ranges
        (SaveMark(), 4, b"\x00"),  # --ctmask
        (SaveMark(), 8, b"\x00"),  # --nfmask
        (SaveMark(), 0, b"\x01"),
        (SaveMark(), 13, b"\x01"),  # --left-shift-mark
        (SaveMark(), 14, b"\x00"),  # --set-mark
        (TProxy(1, 2), 0, b"\x00"),  # a mask
        (TProxy(1, 2), 8, b"\x0a"),  # --on-ip
        (ConntrackZone(1), 0, b"\x01"),  # --notrack
        (ConntrackZone(1), 4, b"\x01"),  # --ctevents
        (ConntrackZone(1), 12, b"ftp"),  # --helper
        (SetMark(1), -1, b"\x07"),  # another revision
    ],
    ids=str,
)
def test_targets_used_as_this_tool_does_not(target: Target, at: int, value: bytes):
    entry = patched(Rule((), target), FIRST + HEADER + at, value)
    found = decode(entry, target_name(target), "ipv4", CHAINS)
    assert found == Rule((), ForeignTarget(("-j", target_name(target))))
    assert encode(found, "ipv4") == entry, "it is put back as it was"


@FAMILIES
@pytest.mark.parametrize("target", [ACCEPT, Jump("ISTIO_OUTPUT"), Jump("ISTIO_OUTPUT", goto=True)], ids=str)
def test_foreign_rules_are_put_back_with_the_name_of_their_target(family: Family, target: Target):
    # What the kernel holds of a verdict or jump has no name, but an offset.
    rule = Rule((Source(Cidr(4, 1, 32) if family == "ipv4" else Cidr(6, 1, 128)), UidOwner(5)), target)
    written = bytearray(encode(rule, family))
    at = sizeof(ENTRIES[family]) + HEADER + 4  # --uid-owner 5-9
    written[at] = 9
    held = bytes(written).replace(target_name(target).encode(), bytes(len(target_name(target))))
    found = decode(held, target_name(target), family, CHAINS)
    assert isinstance(found.matches[0], ForeignMatch)
    assert found.target == target
    assert encode(found, family) == bytes(written)


def test_unknown_targets():
    assert decode(encode(PLAIN, "ipv4"), "LOG", "ipv4", CHAINS).target == ForeignTarget(("-j", "LOG"))
    assert decode(encode(PLAIN, "ipv4"), "", "ipv4", CHAINS).target == ForeignTarget(())
    assert decode(encode(PLAIN, "ipv4"), "LOG", "ipv4", frozenset({"LOG"})).target == Jump("LOG")


def test_what_the_kernel_leaves_behind_a_name_does_not_count():
    rule = Rule((InInterface("eth0"), Comment(TAG)), RETURN)
    entry = patched(rule, 16 + 5, b"garbage")
    assert decode(entry, "RETURN", "ipv4", CHAINS) == rule
    entry = patched(rule, FIRST + HEADER + len(TAG) + 1, b"garbage")
    assert decode(entry, "RETURN", "ipv4", CHAINS) == rule


def test_wildcards_without_their_plus():
    # nft's translation of `eth+` keeps the name without the sign and a shorter mask
    entry = patched(Rule((InInterface("eth+"),), RETURN), 16, b"eth\0")
    assert decode(entry, "RETURN", "ipv4", CHAINS).matches == (InInterface("eth+"),)


@pytest.mark.parametrize(
    "rule",
    [
        Rule((ForeignMatch(("-m", "set")),), RETURN),
        Rule((), ForeignTarget(("-j", "LOG"))),
        Rule((), ForeignTarget(())),
        Rule((DestinationPort(PortRange(80, 80)),), RETURN),
    ],
    ids=str,
)
def test_what_cannot_be_written(rule: Rule):
    with pytest.raises(Unsupported):
        encode(rule, "ipv4")


# --- bytes that Linux would not take ----------------------------------------------------------


@all_cases("size", [0, 31, 41, 0xFFFF])
def test_a_match_of_a_size_that_cannot_be_is_an_error(size: int):
    entry = bytearray(encode(Rule((Mark(5),), RETURN), "ipv4"))
    struct.pack_into("=H", entry, 112, size)
    with pytest.raises(OSError, match="Bad message"):
        decode(bytes(entry), "RETURN", "ipv4", CHAINS)


@all_cases(
    "match", [DestinationPort(PortRange(80, 80)), UidOwner(5), Mark(5), ConntrackState(frozenset({"NEW"}))]
)
def test_a_match_that_is_shorter_than_it_is_in_linux_is_of_another_program(match: Match):
    entry = encode(Rule((Transport("udp"), match), RETURN), "ipv4")
    name = entry[114 : entry.index(b"\0", 114)]
    target_at = struct.unpack_from("=H", entry, 88)[0]
    short = bytearray(entry[:112] + struct.pack("=H", 32) + entry[114:144] + entry[target_at:])
    struct.pack_into("=HH", short, 88, 144, len(short))
    found = decode(bytes(short), "RETURN", "ipv4", CHAINS)
    assert found.matches == (ForeignMatch(("-m", name.decode(), "...")),)
    assert found.raw == short


@all_cases("target", [Redirect(15006), SetMark(1), SaveMark(), TProxy(15006, 1337), ConntrackZone(2)])
def test_a_target_that_is_shorter_than_it_is_in_linux_is_of_another_program(target: Target):
    entry = encode(Rule((), target), "ipv4")
    short = bytearray(entry[:112] + struct.pack("=H", 33) + entry[114:145])
    struct.pack_into("=HH", short, 88, 112, len(short))
    name = target_name(target)
    assert decode(bytes(short), name, "ipv4", CHAINS).target == ForeignTarget(("-j", name))

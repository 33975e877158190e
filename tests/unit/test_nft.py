"""Native tables as text for nft, and what nft prints about them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from istio_iptables.api import build, configure, render
from istio_iptables.errors import SettingsError
from istio_iptables.formats.nft import edit_scripts, rule_lines, script, table_lines
from istio_iptables.rules.model import (
    RETURN,
    Comment,
    Counters,
    ForeignTarget,
    Match,
    Rule,
    Target,
    Transport,
)
from istio_iptables.rules.nftables.model import Addresses, Hook, NativeChain, NativeTable, Ports
from istio_iptables.rules.nftables.translate import translate
from istio_iptables.settings.facts import Facts
from tests.support import strategies
from tests.support.cases import all_cases
from tests.support.nft_printed import COUNTER, MATCHES, TARGETS, TCP, key, match, nat, payload, prefix, read

Settings = dict[str, str]


# --- one rule, written as nft has it and as nft prints it -------------------------------------


@all_cases(("typed", "text", "shown"), MATCHES)
def test_every_match_is_written_and_read(typed: Match, text: str, shown: dict[str, Any]):
    rule = Rule((typed,), RETURN)
    assert rule_lines(rule) == [f"{text} counter return"]
    assert read([shown, COUNTER, {"return": None}]) == (rule,)


@all_cases(("typed", "text", "shown"), TARGETS)
def test_every_target_is_written_and_read(typed: Target, text: str, shown: list[dict[str, Any]]):
    rule = Rule((), typed)
    assert rule_lines(rule) == [f"counter {text}"]
    [found] = read([COUNTER, *shown])
    assert found == rule
    assert found.counters == Counters(3, 180)


def test_counters_are_kept_and_left_out_of_a_comparison():
    rule = Rule((Transport("tcp"),), RETURN, counters=Counters(7, 420))
    assert rule_lines(rule) == ["meta l4proto tcp counter packets 7 bytes 420 return"]
    assert rule_lines(rule, counted=False) == ["meta l4proto tcp counter return"]


def test_a_comment_stands_last():
    rule = Rule((Comment("why; { # $ \\"), Transport("tcp")), RETURN)
    assert rule_lines(rule) == ['meta l4proto tcp counter return comment "why; { # $ \\"']
    assert read([TCP, COUNTER, {"return": None}], comment="why; { # $ \\") == (rule,)


def test_a_port_implies_its_protocol():
    """nft prints `meta l4proto tcp` before it or not, by what else there is; it is the same rule."""
    port = match(payload("tcp", "dport"), 80)
    rules = read([TCP, port, COUNTER, {"return": None}], [port, COUNTER, {"return": None}])
    assert rules[0] == rules[1] == Rule((Ports("destination", "tcp", ((80, 80),)),), RETURN)
    other = match(key("meta", "l4proto"), "udp")
    assert read([other, port, COUNTER, {"return": None}]) != rules[:1]


def test_what_nft_does_not_print_is_of_nobody():
    [rule] = read([match(payload("ip", "daddr"), prefix("255.0.0.1", 4)), COUNTER, {"return": None}])
    assert rule.matches == (Addresses("destination", "ipv4", ((0xFF000001, 0xFFFFFFFF),)),)
    for count in ("3", None, [3]):
        [rule] = read([{"counter": {"packets": count, "bytes": 180}}, {"return": None}])
        assert isinstance(rule.target, ForeignTarget)
    [rule] = read([COUNTER, {}])
    assert isinstance(rule.target, ForeignTarget)


# --- tables -----------------------------------------------------------------------------------


def tables_for(values: Settings, **facts: Any) -> tuple[NativeTable, ...]:
    return translate(build(configure(values, environment=Facts(**{"ipv4": True, "ipv6": True, **facts}))))


def test_short_sets_stand_on_the_line_and_long_ones_below_it():
    def lines(count: int, members: int = 8) -> list[str]:
        ports = Ports("destination", "tcp", tuple((number, number) for number in range(1, 2 * count, 2)))
        return rule_lines(Rule((ports,), RETURN, counters=Counters(1, 40)), members_a_line=members)

    assert lines(2) == ["tcp dport { 1, 3 } counter packets 1 bytes 40 return"]
    assert len(lines(8)) == 1
    assert lines(9) == [
        "tcp dport {",
        "\t1, 3, 5, 7, 9, 11, 13, 15,",
        "\t17,",
        "} counter packets 1 bytes 40 return",
    ]
    assert len(lines(9, members=1)) == 11


def test_explain_puts_the_reason_above_each_rule():
    ruleset = build(configure({"dual-stack": "true"}, environment=Facts(ipv4=True, ipv6=True)))
    plain, explained = render(ruleset, "nft"), render(ruleset, "nft", explain=True)
    lines = explained.splitlines()
    assert [line for line in lines if not line.startswith("\t\t#")] == plain.splitlines()
    rules = [
        number for number, line in enumerate(lines) if " counter " in line or line.startswith("\t\tcounter")
    ]
    assert len(rules) >= 15
    assert all(re.fullmatch(r"\t\t# \S.+", lines[number - 1]) for number in rules)


def test_one_family_alone():
    ruleset = build(configure({"dual-stack": "true"}, environment=Facts(ipv4=True, ipv6=True)))
    for family, other in (("ipv4", "ip6 "), ("ipv6", "ip ")):
        text = render(ruleset, "nft", [family])  # type: ignore[list-item]
        assert f"meta nfproto {family}" in text
        assert f"\t{other}" not in text
    assert render(ruleset, "nft", []) == ""


def test_a_comparison_by_lines_names_the_chain_and_has_each_member_of_a_long_set_on_a_line():
    values = {"istio-inbound-ports": ",".join(str(number) for number in range(1, 40, 2))}
    [table] = tables_for(values)
    lines = list(table_lines(table))
    assert lines[0] == "table inet istio-proxy-nat"
    assert "prerouting: type nat hook prerouting priority -100; policy accept;" in lines
    assert "istio-inbound: \t39," in lines
    assert all(re.match(r"[a-z-]+: ", line) for line in lines[1:])


# --- edits ------------------------------------------------------------------------------------


def edit_script(before: tuple[NativeTable, ...], after: tuple[NativeTable, ...]) -> str:
    """The one transaction of an edit that needs no set made before it."""
    [text] = edit_scripts(before, after)
    return text


HOOK = Hook("nat", "output", -100)
RULE = Rule((), RETURN)


def test_what_is_new_is_made_and_what_is_old_deleted():
    table = nat(NativeChain("output", HOOK, (RULE,)))
    assert edit_script((), (table,)) == script((table,))
    assert edit_script((table,), ()) == "delete table inet istio-proxy-nat\n"
    assert edit_scripts((), ()) == []


def test_a_table_that_stays_is_emptied_and_filled_and_chains_that_are_gone_are_deleted():
    before = nat(NativeChain("output", HOOK, (RULE,)), NativeChain("old", None, (RULE,)))
    after = nat(NativeChain("output", HOOK, (RULE, RULE)), NativeChain("new", None, (RULE,)))
    assert edit_script((before,), (after,)) == (
        "flush table inet istio-proxy-nat\ndelete chain inet istio-proxy-nat old\n" + script((after,))
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({}, {"hook": Hook("nat", "output", -99)}, id="another hook"),
        pytest.param({"hook": Hook("nat", "output", -100, "drop")}, {}, id="another policy"),
        pytest.param({"hook": None}, {}, id="no hook before"),
        pytest.param({"extras": ("flags dormant",)}, {}, id="something that has no name"),
        pytest.param({}, {"text": "table inet istio-proxy-nat {\n}\n"}, id="back to what nft printed"),
    ],
)
def test_a_table_that_cannot_stay_is_made_anew(before: dict[str, Any], after: dict[str, Any]):
    def table(extras: tuple[str, ...] = (), text: str = "", hook: Hook | None = HOOK) -> NativeTable:
        return nat(NativeChain("output", hook, (RULE,)), extras=extras, text=text)

    found = edit_script((table(**before),), (table(**after),))
    assert found == "delete table inet istio-proxy-nat\n" + script((table(**after),))


EXTRAS = ("map m", "set s")


def test_foreign_rules_in_a_table_are_taken_out_of_it():
    """The table stays: one that is made anew would have its rules and their sets in one transaction."""
    before = nat(
        NativeChain("output", HOOK, (RULE,)), NativeChain("old", None, ()), extras=("map m", "set s")
    )
    found = edit_script((before,), (nat(NativeChain("output", HOOK, (RULE,))),))
    assert found.splitlines()[:4] == [
        "flush table inet istio-proxy-nat",
        "delete map inet istio-proxy-nat m",  # it may lead to the chain
        "delete set inet istio-proxy-nat s",
        "delete chain inet istio-proxy-nat old",
    ]


@given(strategies.settings(), strategies.settings())
def test_deletions_come_before_everything_that_is_made(one: Settings, other: Settings):
    """Or something just made would go again; and each table is deleted or flushed exactly once."""
    before, after = tables_for(one), tables_for(other)
    *sets, text = edit_scripts(before, after)
    lines = text.splitlines()
    removals = [number for number, line in enumerate(lines) if line.startswith(("flush ", "delete "))]
    assert removals == list(range(len(removals)))
    touched = [line.split()[3] for line in lines if line.startswith(("flush table ", "delete table "))]
    assert touched == [table.name for table in before]
    for made in sets:
        assert not re.search("flush|delete|chain|counter", made)


# --- nothing that a user writes is more than a value ------------------------------------------


_VALUE = r"(?:0x)?[0-9a-f.:/-]+"
_SET_NAME = r"(?:ports|addresses6?|users|groups)-[0-9a-f]{12}"
_VALUES = rf"(?:!= )?(?:{_VALUE}|{{ {_VALUE}(?:, {_VALUE})* }}|@{_SET_NAME})"
_CONDITIONS = (
    rf"ip6? [sd]addr {_VALUES}",
    rf"(?:tcp|udp) [sd]port {_VALUES}",
    rf"meta sk[ug]id {_VALUES}",
    rf"(?:ct|meta) mark {_VALUES}",
    r'[io]ifname (?:!= )?"[^"\n]+"',
    r"meta l4proto (?:tcp|udp)",
    r"meta nfproto ipv[46]",
    r"ct state [a-z,]+",
)

_EFFECTS = (
    r"accept|drop|return",
    r"(?:jump|goto) [a-z-]+",
    r"redirect to :\d+",
    rf"meta mark set (?:{_VALUE}|ct mark)",
    r"ct mark set meta mark",
    r"ct zone set \d",
    rf"tproxy ip6? to :\d+ meta mark set {_VALUE} accept",
)

#: One rule: matches, a counter, what is done, and at times a comment without quotes within.
_RULE = re.compile(
    rf"""(?:(?:{"|".join(_CONDITIONS)}) )*counter (?:{"|".join(_EFFECTS)})(?: comment "[^"\n]+")?"""
)

_STRUCTURE = re.compile(
    rf"""|}}|\t}}|table inet istio-proxy-[a-z]+ {{|\t(?:chain [a-z-]+|set {_SET_NAME}) {{"""
    rf"""|\t\ttype (?:nat|filter|route) hook [a-z]+ priority -\d+; policy accept;"""
    rf"""|\t\ttype (?:inet_service|ipv4_addr|ipv6_addr|uid|gid)|\t\tflags interval"""
    rf"""|\t\telements = {{ {_VALUE}(?:, {_VALUE})* }}"""
)

_LONG_SET = re.compile(rf"{{\n(?:\t\t\t{_VALUE}(?:, {_VALUE})*,\n)+\t\t}}")


@given(strategies.settings(), st.booleans())
def test_every_line_is_one_statement(values: Settings, comments: bool):
    values = {**values, "rule-comments": str(comments)}
    for table in tables_for(values, servers=("10.0.0.1", "fd00::1")):
        text = _LONG_SET.sub("{ 1 }", script((table,)))
        for line in text.splitlines():
            assert _STRUCTURE.fullmatch(line) or _RULE.fullmatch(line.removeprefix("\t\t")), line


HOSTILE = [
    "a;b",
    "a#b",
    "a{b}",
    "$HOME",
    "@set",
    "a'b",
    "a*",
    "a*b",
    "lo0;",
    "accept",
    "`id`",
    "\u00e9",
    "a|b",
]


@all_cases("name", HOSTILE)
def test_interface_names_are_quoted(name: str):
    values = {"istio-exclude-interfaces": name, "rule-comments": "true", "dual-stack": "true"}
    [table] = tables_for(values)
    [line] = [line for line in script((table,)).splitlines() if "iifname" in line]
    written = f"{name[:-1]}\\*" if name.endswith("*") else name
    reason = f"traffic from interface {name} is excluded"
    assert line == f'\t\tiifname "{written}" counter return comment "{reason}"'


@pytest.mark.parametrize("name", ['a"b', '"', "a\\b", "a\\", 'x"accept'])
def test_an_interface_name_that_nft_cannot_write_is_refused_by_name(name: str):
    """No way to escape a quote or a backslash; iptables can."""
    ruleset = build(configure({"istio-exclude-interfaces": name}, environment=Facts(ipv4=True)))
    with pytest.raises(SettingsError, match=re.escape(repr(name))):
        render(ruleset, "nft")
    assert render(ruleset)

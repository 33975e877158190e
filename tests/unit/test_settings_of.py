"""Settings read back from rules: they make the same rules again, or it is said that none do.

The property is that of `status`: whatever the settings were, the arguments that it prints, given to
`configure` and `build` elsewhere, make the rules that were read, rule for rule and byte for byte.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from istio_iptables import Facts, Ruleset, build, configure, render
from istio_iptables.rules.model import (
    DROP,
    IPV4,
    RETURN,
    Chain,
    Cidr,
    Comment,
    Destination,
    DestinationPort,
    ForeignMatch,
    Jump,
    LocalAddress,
    MarkLookup,
    PortRange,
    Redirect,
    Rule,
    Table,
    Transport,
)
from istio_iptables.rules.nftables.model import NativeTable
from istio_iptables.rules.nftables.translate import translate
from istio_iptables.settings.resolve import parse, resolve
from istio_iptables.status.from_native import as_iptables, cidrs_of
from istio_iptables.status.settings_of import ReadBack, settings_of
from tests.support.cases import all_cases
from tests.support.golden import given as given_by
from tests.support.golden_cases import GOLDEN, Golden
from tests.support.strategies import colliding_settings, environments, settings

Values = Mapping[str, str]
Pod = tuple[bool, bool, list[str]]
DUAL_STACK: Pod = (True, True, [])


def examples(times: float) -> Any:
    """As many times the examples of the profile; the default is 100."""
    return hypothesis_settings(max_examples=round(times * hypothesis_settings().max_examples))


def rules_for(values: Values, pod: Pod = (True, False, [])) -> Ruleset:
    ipv4, ipv6, servers = pod
    return build(configure(values, environment=Facts(ipv4=ipv4, ipv6=ipv6, servers=tuple(servers))))


def again(found: ReadBack) -> Ruleset:
    """The rules that the settings read make elsewhere."""
    return build(configure(found.settings, environment=found.facts))


def as_read(ruleset: Ruleset) -> Ruleset:
    """As the kernel has it: rules of a built-in chain in their places, no reasons, an empty chain."""

    def chain(given: Chain) -> Chain:
        return Chain(given.name, tuple(Rule(rule.matches, rule.target) for rule in given.in_order))

    return ruleset.replace(
        tables=tuple(t.replace(chains=(Chain("INPUT"), *map(chain, t.chains))) for t in ruleset.tables)
    )


def read(ruleset: Ruleset, native: tuple[NativeTable, ...] = ()) -> ReadBack:
    found = settings_of(ruleset, native)
    assert found is not None
    return found


# --- the settings make the same rules -----------------------------------------------------------


@examples(5)
@given(settings() | colliding_settings(), environments(), st.booleans(), st.booleans())
def test_the_settings_of_iptables_rules_make_the_same_rules(
    values: dict[str, str], pod: Pod, compact: bool, comments: bool
):
    values |= {"compact": str(compact).lower(), "rule-comments": str(comments).lower()}
    wanted = rules_for(values, pod)
    found = read(as_read(wanted))
    assert found.exact
    assert again(found) == wanted == found.ruleset
    assert render(again(found)) == render(wanted)
    assert render(again(found), "commands") == render(wanted, "commands")


@examples(5)
@given(settings() | colliding_settings(), environments(), st.booleans())
def test_the_settings_of_native_rules_make_the_same_rules(values: dict[str, str], pod: Pod, comments: bool):
    values |= {"native-nftables": "true", "rule-comments": str(comments).lower()}
    wanted = rules_for(values, pod)
    native = translate(wanted)
    found = read(Ruleset(routing=wanted.routing), native)
    assert found.exact
    assert found.native
    assert found.settings["native-nftables"] == "true"
    assert translate(again(found)) == native
    assert again(found).routing == wanted.routing
    assert render(again(found), "nft") == render(wanted, "nft")


@all_cases("golden", GOLDEN, ids=lambda golden: golden.name)
def test_the_settings_of_the_golden_files_make_the_same_rules(golden: Golden):
    config, _ = resolve(parse(given_by(golden), golden.facts()), golden.facts())
    wanted = build(config)
    native = translate(wanted) if golden.style == "nft" else ()
    found = read(as_read(wanted), native)
    assert found.exact
    assert render(again(found), golden.style) == render(wanted, golden.style)


# --- what they are ------------------------------------------------------------------------------


@all_cases(
    ("arguments", "more"),
    [
        ("", ""),
        ("--istio-inbound-ports=80,8000-8100 --envoy-port=15101 --inbound-capture-port=15106", ""),
        ("--istio-inbound-ports=", ""),
        ("--istio-local-exclude-ports=15020,15021,15090", ""),
        ("--istio-local-exclude-ports=15008", ""),  # the tunnel port, which has a rule anyway
        ("--inbound-tunnel-port=80 --istio-local-exclude-ports=80", ""),
        ("--istio-inbound-interception-mode=TPROXY --istio-inbound-tproxy-mark=1400", ""),
        ("--istio-inbound-interception-mode=TPROXY --istio-inbound-tproxy-route-table=140", ""),
        ("--istio-inbound-ports= --istio-inbound-interception-mode=TPROXY", ""),
        ("--istio-service-cidr=", ""),
        ("--istio-service-cidr=10.0.0.0/8 --istio-service-exclude-cidr=10.1.0.0/16,127.0.0.1/32", ""),
        ("--istio-service-cidr=127.0.0.1/0", ""),  # not 0.0.0.0/0: it names a loopback address
        ("--istio-service-cidr=10.0.0.0/8,::1/128", ""),  # that of a family that is off
        ("--istio-outbound-ports=443 --istio-local-outbound-ports-exclude=53,123", ""),
        ("--istio-exclude-interfaces=eth1,net+ --kube-virt-interfaces=vm0,vm1", ""),
        ("--istio-exclude-interfaces=vm0 --kube-virt-interfaces=vm0", ""),
        ("--istio-exclude-interfaces=+ --istio-service-cidr= --kube-virt-interfaces=+", ""),
        ("--drop-invalid=true", ""),
        ("--proxy-uid=1000,2000 --proxy-gid=3000", ""),
        ("--redirect-dns=true --capture-all-dns=true", ""),
        ("--redirect-dns=true --capture-all-dns=true --dns-single-zone=true", ""),
        ("--rule-comments=true", ""),
        ("--istio-local-exclude-ports=80,82 --compact=true", ""),
        ("", "ISTIO_OUTBOUND_OWNER_GROUPS=100,200"),
        ("", "ISTIO_OUTBOUND_OWNER_GROUPS="),
        ("", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE=1337,100"),
        ("", "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR=127.0.0.0/8"),
    ],
)
def test_settings_are_those_that_differ_from_the_defaults(arguments: str, more: str):
    words = [word[2:].partition("=") for word in shlex.split(arguments)]
    words += [word.partition("=") for word in shlex.split(more)]
    values = {name: text for name, _, text in words}
    found = read(as_read(rules_for(values)))
    assert {"proxy-uid": "1337", **values} == dict(found.settings)
    assert [*found.arguments] == [f"--{n}={t}" for n, t in found.settings.items() if n.islower()]
    assert found.variables == {n: t for n, t in found.settings.items() if not n.islower()}
    assert found.exact


def test_order_is_that_of_the_help_and_the_proxys_users_are_always_there():
    """Their default depends on the machine."""
    found = read(rules_for({"drop-invalid": "t", "istio-inbound-ports": "80", "envoy-port": "1"}))
    assert list(found.settings) == ["istio-inbound-ports", "drop-invalid", "envoy-port", "proxy-uid"]


def test_what_the_machine_needs_besides_is_told():
    servers = ["10.96.0.10", "fd00::a", "10.96.0.11"]
    found = read(rules_for({"dual-stack": "t", "redirect-dns": "t"}, (True, True, servers)))
    assert found.facts == Facts(ipv4=True, ipv6=True, servers=("10.96.0.10", "10.96.0.11", "fd00::a"))
    assert found.settings["dual-stack"] == "true"


def test_servers_that_compact_has_merged_are_hosts():
    servers = ["10.0.0.2", "10.0.0.3"]
    found = read(rules_for({"redirect-dns": "t", "compact": "t"}, (True, False, servers)))
    assert found.facts.servers == ("10.0.0.2", "10.0.0.3")


def test_servers_of_a_family_that_is_off_have_a_stand_in():
    found = read(rules_for({"redirect-dns": "t"}, (True, False, ["fd00::a"])))
    assert found.facts.servers == ("2001:db8::53",)
    assert "stands for them" in {u.setting: u.why for u in found.untold}["redirect-dns"]


def test_ipv6_that_is_on_by_itself_is_dual_stack():
    found = read(rules_for({}, (False, True, [])))
    assert found.settings["dual-stack"] == "true"
    assert "dual-stack" in {each.setting for each in found.untold}


def test_foreign_rules_do_not_count():
    mine = as_read(rules_for({}))
    foreign = Rule((Transport("tcp"), ForeignMatch(("--syn",))), DROP)
    table = mine.table(IPV4, "nat")
    chains = tuple(c.replace(rules=(foreign, *c.rules)) if c.name == "OUTPUT" else c for c in table.chains)
    other = Chain("DOCKER", (Rule((), Redirect(53)),))
    found = read(mine.replace(tables=(table.replace(chains=(*chains, other)),)))
    assert found.exact


def test_nothing_of_ours_has_no_settings():
    assert settings_of(Ruleset()) is None
    foreign = Table(IPV4, "nat", (Chain("OUTPUT", (Rule((), Jump("DOCKER")),)), Chain("ISTIO_OUTPUT")))
    assert settings_of(Ruleset((foreign,))) is None
    assert settings_of(Ruleset(), (NativeTable("istio-proxy-nat", unused=("ports-1",)),)) is None


# --- what cannot be told ------------------------------------------------------------------------


def untold_of(values: Values, pod: Pod = (True, False, [])) -> set[str]:
    wanted = rules_for(values, pod)
    native = translate(wanted) if values.get("native-nftables") else ()
    return {each.setting for each in read(wanted, native).untold}


@examples(1)
@given(settings(), st.booleans(), st.data())
def test_what_is_untold_makes_no_difference(values: dict[str, str], native: bool, data: st.DataObject):
    """Any value of it leaves the rules as they are."""
    if native:
        values["native-nftables"] = "true"
    wanted = rules_for(values, DUAL_STACK)
    found = read(wanted, translate(wanted) if native else ())
    free = [each.setting for each in found.untold if not each.partly]
    if free:
        name = data.draw(st.sampled_from(free))
        other = build(configure({**found.settings, name: FREE[name]}, environment=found.facts))
        if native:
            assert translate(other) == translate(found.ruleset)
        else:
            assert other == found.ruleset


#: Another value for each setting that may leave no trace.
FREE = {
    "istio-local-exclude-ports": "1,2,3",
    "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "1,2,3",
    "istio-inbound-tproxy-mark": "77",
    "istio-inbound-tproxy-route-table": "77",
    "capture-all-dns": "true",
    "dns-single-zone": "true",
    "compact": "true",
}


@all_cases(
    ("values", "untold", "told"),
    [
        ({}, {"istio-inbound-tproxy-mark", "redirect-dns", "dual-stack"}, {"istio-local-exclude-ports"}),
        ({"istio-inbound-ports": "80"}, {"istio-local-exclude-ports"}, {"istio-inbound-ports"}),
        (
            {"istio-inbound-interception-mode": "TPROXY"},
            set(),
            {"istio-inbound-tproxy-mark", "istio-inbound-tproxy-route-table"},
        ),
        (
            {"istio-inbound-interception-mode": "TPROXY", "istio-inbound-ports": ""},
            {"istio-inbound-tproxy-route-table"},
            {"istio-inbound-tproxy-mark"},
        ),
        ({"redirect-dns": "t", "capture-all-dns": "t"}, set(), {"capture-all-dns", "dns-single-zone"}),
        (
            {"ISTIO_OUTBOUND_OWNER_GROUPS": "1"},
            {"ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"},
            {"ISTIO_OUTBOUND_OWNER_GROUPS"},
        ),
        ({"compact": "t", "istio-outbound-ports": "1,3"}, {"istio-outbound-ports"}, {"compact"}),
        ({"native-nftables": "t", "istio-outbound-ports": "1,3"}, {"istio-outbound-ports", "compact"}, set()),
        ({"istio-outbound-ports": "1"}, {"compact"}, {"istio-outbound-ports"}),
        ({"istio-outbound-ports": "1,3"}, set(), {"compact", "istio-outbound-ports"}),
        ({"istio-service-cidr": "10.0.0.0/8"}, {"istio-service-cidr"}, set()),  # that of IPv6
    ],
)
def test_settings_that_rules_do_not_tell_are_named(values: Values, untold: set[str], told: set[str]):
    found = untold_of(values)
    assert untold <= found
    assert not told & found


# --- rules that somebody has changed ------------------------------------------------------------


def changed(ruleset: Ruleset, edit: Callable[[Table, Chain], Chain]) -> Ruleset:
    return ruleset.replace(
        tables=tuple(t.replace(chains=tuple(edit(t, chain) for chain in t.chains)) for t in ruleset.tables)
    )


def without(target: object, chain_name: str = "") -> Callable[[Table, Chain], Chain]:
    def edit(_: Table, chain: Chain) -> Chain:
        if chain_name not in ("", chain.name):
            return chain
        return chain.replace(rules=tuple(rule for rule in chain.rules if rule.target != target))

    return edit


def test_a_rule_that_is_missing_is_no_setting_and_the_nearest_is_told():
    mine = as_read(rules_for({"istio-local-exclude-ports": "80"}))
    found = read(changed(mine, without(Jump("ISTIO_OUTPUT"))))
    assert not found.exact
    assert found.settings == {"istio-local-exclude-ports": "80", "proxy-uid": "1337"}


def test_a_rule_more_is_no_setting():
    more = Rule((Transport("tcp"), DestinationPort(PortRange(80, 80)), Destination(Cidr(4, 0, 8))), RETURN)

    def edit(_: Table, chain: Chain) -> Chain:
        return chain.replace(rules=(more, *chain.rules)) if chain.name == "ISTIO_OUTPUT" else chain

    found = read(changed(as_read(rules_for({})), edit))
    assert not found.exact
    assert found.settings == {"proxy-uid": "1337"}


def test_another_order_is_no_setting():
    def edit(_: Table, chain: Chain) -> Chain:
        return chain.replace(rules=chain.rules[::-1]) if chain.name == "ISTIO_OUTPUT" else chain

    assert not read(changed(as_read(rules_for({})), edit)).exact


def test_a_family_that_has_lost_its_rules_is_seen():
    mine = as_read(rules_for({"dual-stack": "t"}, DUAL_STACK))
    left = mine.replace(tables=tuple(table for table in mine.tables if table.family == IPV4))
    found = read(left)
    assert not found.exact
    assert found.settings["dual-stack"] == "true"  # ::6 is there
    assert [table.family for table in found.ruleset.tables] == ["ipv4", "ipv6"]


def test_the_family_that_is_right_is_the_one_to_read():
    """All rules of IPv4 that tell the port are gone, and those of IPv6 tell it."""
    mine = as_read(
        rules_for({"dual-stack": "t", "envoy-port": "1", "istio-outbound-ports": "443"}, DUAL_STACK)
    )

    def edit(table: Table, chain: Chain) -> Chain:
        if table.family == IPV4 and chain.name in ("ISTIO_REDIRECT", "ISTIO_OUTPUT"):
            return chain.replace(rules=())
        return chain

    found = read(changed(mine, edit))
    assert not found.exact
    assert (found.settings["envoy-port"], found.settings["istio-outbound-ports"]) == ("1", "443")


@pytest.mark.parametrize(
    "routing", [(), (LocalAddress(Cidr(6, 6, 128)),), (MarkLookup(IPV4, 1337, 133),)], ids=str
)
def test_routes_that_are_missing_or_left_are_seen(routing: tuple[Any, ...]):
    mine = rules_for({"istio-inbound-interception-mode": "TPROXY"})
    assert read(mine).exact
    assert not read(mine.replace(routing=routing)).exact


def test_native_tables_that_were_changed_are_no_setting():
    native = translate(rules_for({}))
    assert read(Ruleset(), native).exact
    (table,) = native
    assert not read(Ruleset(), (table.replace(extras=("map x",)),)).exact
    fewer = tuple(c.replace(rules=c.rules[1:]) if c.name == "istio-output" else c for c in table.chains)
    assert not read(Ruleset(), (table.replace(chains=fewer),)).exact
    unhooked = tuple(c.replace(hook=None) if c.name == "output" else c for c in table.chains)
    assert not read(Ruleset(), (table.replace(chains=unhooked),)).exact


def test_rules_of_istios_own_tool_are_those_of_settings_but_for_the_comment():
    mine = as_read(rules_for({"istio-inbound-interception-mode": "TPROXY"}))

    def edit(_: Table, chain: Chain) -> Chain:
        rules = (
            r.replace(matches=tuple(m for m in r.matches if not isinstance(m, Comment))) for r in chain.rules
        )
        return chain.replace(rules=tuple(rules))

    found = read(changed(mine, edit))
    assert (found.exact, found.untagged) == (True, True)
    assert found.settings["istio-inbound-interception-mode"] == "TPROXY"
    assert (read(mine).exact, read(mine).untagged) == (True, False)


@examples(2)
@given(settings() | colliding_settings(), environments(), st.booleans(), st.data())
def test_whatever_was_changed_the_answer_is_right(
    values: dict[str, str], pod: Pod, native: bool, data: st.DataObject
):
    """Rules are removed, moved and doubled: it never fails, and what it calls exact makes these rules."""
    wanted = rules_for(values, pod)
    tables: tuple[Any, ...] = translate(wanted) if native else as_read(wanted).tables
    for _ in range(data.draw(st.integers(1, 3))):
        tables = damaged(tables, data)
    found = settings_of(wanted.replace(tables=() if native else tables), tables if native else ())
    if found is None:
        assert not any(chain.rules for table in tables for chain in table.chains)
        return
    if found.exact:
        assert_same_rules(translate(again(found)) if native else again(found).tables, tables)


def damaged(tables: tuple[Any, ...], data: st.DataObject) -> tuple[Any, ...]:
    place = data.draw(st.sampled_from([(t, c) for t in tables for c in t.chains]))
    rules = list(place[1].rules)
    if rules:
        at = data.draw(st.integers(0, len(rules) - 1))
        kind = data.draw(st.sampled_from(["gone", "double", "moved", "emptied"]))
        rule = rules.pop(at)
        if kind == "double":
            rules[at:at] = [rule, rule]
        elif kind == "moved":
            rules.append(rule)
        elif kind == "emptied":
            rules = []
    changed_chain = place[1].replace(rules=tuple(rules))
    return tuple(
        t.replace(chains=tuple(changed_chain if c is place[1] else c for c in t.chains))
        if t is place[0]
        else t
        for t in tables
    )


def assert_same_rules(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    def flat(tables: tuple[Any, ...]) -> dict[tuple[object, ...], object]:
        return {
            (getattr(table, "family", ""), table.name, chain.name): getattr(chain, "in_order", chain.rules)
            for table in tables
            for chain in table.chains
            if getattr(chain, "in_order", chain.rules)
        }

    assert flat(one) == flat(other)


# --- native tables in the form of iptables ------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_ranges_are_the_fewest_cidrs(one: int, other: int):
    import ipaddress

    first, last = sorted((one, other))
    wanted = ipaddress.summarize_address_range(ipaddress.IPv4Address(first), ipaddress.IPv4Address(last))
    assert [str(cidr) for cidr in cidrs_of(4, ((first, last),))] == list(map(str, wanted))


def test_all_of_ipv6_is_one_cidr():
    assert [str(cidr) for cidr in cidrs_of(6, ((0, 2**128 - 1),))] == ["::/0"]


@pytest.mark.parametrize(("ipv6", "families"), [(False, {"ipv4"}), (True, {"ipv4", "ipv6"})])
def test_native_tables_are_of_the_families_that_they_look_at(ipv6: bool, families: set[str]):
    native = translate(rules_for({"dual-stack": "t"}, (True, ipv6, [])))
    assert {table.family for table in as_iptables(native).tables} == families

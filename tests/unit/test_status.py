"""`status` without a kernel: what is in place as data, as text and as JSON.

tests/kernel/test_status.py has the kernel, and tests/unit/test_settings_of.py the settings that rules mean.
"""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from istio_iptables import Facts, build, configure
from istio_iptables.change.actions import IPTABLES_LEGACY, IPTABLES_NFT, NFTABLES, Live, UnreadableTable
from istio_iptables.change.neighbours import Interference
from istio_iptables.rules.model import (
    ACCEPT,
    IPV4,
    RETURN,
    Chain,
    Cidr,
    Comment,
    Counters,
    Destination,
    DestinationPort,
    InInterface,
    Jump,
    Mark,
    PortRange,
    Redirect,
    Rule,
    SaveMark,
    Table,
    Transport,
)
from istio_iptables.rules.nftables.translate import translate
from istio_iptables.status.counters import notes
from istio_iptables.status.document import document
from istio_iptables.status.report import Status, report
from istio_iptables.status.text import text
from istio_iptables.testing import FakeKernel
from tests.support.status import (
    LOCATIONS,
    Location,
    counted,
    edited,
    every_location,
    in_place,
    rows,
    rules_for,
)
from tests.support.strategies import environments, settings

# --- what is in place ---------------------------------------------------------------------------


def test_nothing_is_absent():
    found = report(FakeKernel().live())
    assert (found.state, found.places) == ("absent", ())
    assert text(found).startswith("state     absent: istio-iptables has no rules in this network namespace")


@every_location
def test_where_the_rules_are_and_what_they_mean(location: Location):
    found = report(in_place(rules_for(ipv6=True, inbound_ports="80,443"), location).live())
    assert found.state == "in-place"
    (place,) = found.places
    assert (place.location, place.families) == (location, ("ipv4", "ipv6"))
    assert place.settings.exact
    assert place.settings.settings["istio-inbound-ports"] == "80,443"
    assert place.plan is None
    shown = text(found)
    name = "native nftables" if location == NFTABLES else location
    assert f"backend   {name}, IPv4 and IPv6\n" in shown
    assert "settings  istio-iptables --istio-inbound-ports=80,443 --proxy-uid=1337 --dual-stack=true" in shown
    assert "routing   ip -6 addr add ::6/128 dev lo nodad\n" in shown


@given(settings(), environments(), st.sampled_from(LOCATIONS))
def test_every_rule_has_the_reason_that_the_policy_gives_it(
    values: dict[str, str], pod: tuple[bool, bool, list[str]], location: Location
):
    ipv4, ipv6, servers = pod
    facts = Facts(ipv4=ipv4, ipv6=ipv6, servers=tuple(servers))
    wanted = build(configure(values, environment=facts))
    found = report(in_place(wanted, location).live())
    assert found.state == "in-place"
    meant = found.places[0].settings.ruleset
    if location == NFTABLES:
        reasons = [r.reason for table in translate(meant) for chain in table.chains for r in chain.rules]
    else:
        reasons = [rule.reason for _, _, rule in meant.rules()]
    assert all(reasons)
    assert [row.reason for row in rows(found)] == reasons
    assert text(found)
    json.dumps(document(found))


@every_location
def test_counters_are_those_of_the_rule(location: Location):
    chain, target = ("istio-redirect" if location == NFTABLES else "ISTIO_REDIRECT"), Redirect(15001)
    live = counted(in_place(rules_for(), location).live(), {(chain, target): 7})
    (row,) = [row for row in rows(report(live)) if row.rule.target == target]
    assert (row.rule.counters, row.reason) == (Counters(7, 700), "to the proxy's outbound listener")
    assert re.search(r"(?m)^ +7 +700  .*15001\n +to the proxy's outbound listener$", text(report(live)))
    (shown,) = [rule for rule in json_rules(report(live)) if rule["packets"]]
    assert (shown["packets"], shown["bytes"], shown["number"]) == (7, 700, 1)


def json_rules(status: Status) -> list[dict[str, Any]]:
    places = document(status)["places"]
    return [rule for p in places for t in p["tables"] for chain in t["chains"] for rule in chain["rules"]]


def test_rules_that_have_counted_are_bold_where_there_are_colours():
    live = counted(in_place(rules_for()).live(), {("ISTIO_REDIRECT", Redirect(15001)): 7})
    assert "\x1b[1m         7         700  -p tcp -j REDIRECT --to-ports 15001\x1b[0m" in text(
        report(live), colour=True
    )
    assert "\x1b" not in text(report(live))


def test_numbers_are_those_of_iptables_foreign_rules_included():
    machine = in_place(rules_for())
    foreign = Rule((Destination(Cidr(4, 0x0A000000, 8)),), ACCEPT)
    before = machine.tables[IPTABLES_LEGACY, IPV4, "nat"]
    chains = (c.replace(rules=(foreign, *c.rules)) if c.name == "OUTPUT" else c for c in before.chains)
    machine.tables[IPTABLES_LEGACY, IPV4, "nat"] = before.replace(chains=tuple(chains))
    found = report(machine.live())
    (row,) = [row for row in rows(found) if row.rule.target == Jump("ISTIO_OUTPUT")]
    assert row.number == 2
    assert found.state == "in-place"


def test_chains_are_in_the_order_of_a_packets_way():
    found = report(in_place(rules_for(), NFTABLES).live())
    names = [chain.name for chain in found.places[0].tables[0].chains]
    assert names == [
        *("prerouting", "istio-inbound", "istio-in-redirect"),
        *("output", "istio-output", "istio-redirect"),
    ]


def test_long_lists_are_folded_unless_they_have_counted():
    live = in_place(rules_for(inbound_ports_excluded=list(range(1, 30)))).live()
    shown = text(report(live))
    assert shown.count("is excluded") == 3
    assert "... and 26 more of that list, which have counted nothing\n" in shown
    live = counted(live, {("ISTIO_INBOUND", RETURN): 1})
    assert text(report(live)).count("is excluded") == 29


def test_long_sets_and_command_lines_are_shortened_and_json_has_them():
    cidrs = [f"10.{n}.0.0/24" for n in range(250)]
    live = in_place(rules_for(outbound_cidrs_excluded=cidrs), NFTABLES).live()
    found = report(live)
    assert max(map(len, text(found).splitlines())) < 400
    assert "too long to be shown" in text(found)
    assert "(250 members)" in text(found)
    assert ",".join(cidrs) in " ".join(document(found)["places"][0]["arguments"])
    assert any("10.249.0.0/24" in rule["rule"] for rule in json_rules(found))


def test_settings_that_are_variables_are_before_the_command():
    found = report(in_place(rules_for(owner_groups=[100, 200])).live())
    assert "settings  ISTIO_OUTBOUND_OWNER_GROUPS=100,200 istio-iptables --proxy-uid=1337\n" in text(found)


def test_dns_servers_are_what_the_settings_need():
    facts = Facts(servers=("10.96.0.10",))
    found = report(in_place(build(configure(redirect_dns=True, environment=facts))).live())
    assert "needs     in /etc/resolv.conf, the servers 10.96.0.10\n" in text(found)
    assert document(found)["places"][0]["needs"] == {"ipv6": False, "dns_servers": ["10.96.0.10"]}
    facts = Facts(servers=("fd00::a",))
    found = report(in_place(build(configure(redirect_dns=True, environment=facts))).live())
    assert "needs     in /etc/resolv.conf, a server of IPv6\n" in text(found)


def test_what_the_rules_do_not_tell_is_named():
    shown = text(report(in_place(rules_for(inbound_ports="80")).live()))
    told = shown.partition("the rules do not tell (--json says why):")[2].partition("\n\n")[0].split()
    assert "--istio-local-exclude-ports," in told
    assert all(len(line) < 100 for line in shown.partition("\n\n")[0].splitlines())


# --- what is not as it should be ----------------------------------------------------------------


def test_rules_that_no_settings_mean():
    machine = in_place(rules_for(inbound_ports="80"))
    found = report(edited(machine, "OUTPUT"))
    assert found.state == "altered"
    shown = text(found)
    assert "state     altered: no settings mean exactly these rules\n" in shown
    assert "nearest   istio-iptables --istio-inbound-ports=80 --proxy-uid=1337\n" in shown
    assert "to those of the nearest settings (+):\n@ ipv4 nat (iptables-legacy)\n" in shown
    assert "\n+-A OUTPUT -j ISTIO_OUTPUT\n" in shown
    (place,) = document(found)["places"]
    assert not place["exact"]
    assert place["difference"][0]["added"] == ["-A OUTPUT -j ISTIO_OUTPUT"]


def test_a_rule_that_is_not_from_settings_has_no_reason():
    odd = Rule((Transport("tcp"), DestinationPort(PortRange(1, 1))), Jump("ISTIO_REDIRECT"))
    machine = in_place(rules_for())
    live = edited(machine, "ISTIO_REDIRECT", Rule((Transport("tcp"),), Redirect(15001)), odd)
    assert [row.reason for row in rows(report(live)) if row.rule == odd] == [""]
    assert "no settings mean this rule" in text(report(live))


def test_rules_in_two_backends_are_not_whole():
    machine = in_place(rules_for(inbound_ports="80"))
    one = machine.live()
    other = in_place(rules_for(), IPTABLES_NFT).live()
    both = one.replace(tables={**one.tables, IPTABLES_NFT: other.tables[IPTABLES_NFT]})
    found = report(both)
    assert found.state == "altered"
    assert [place.location for place in found.places] == [IPTABLES_LEGACY, IPTABLES_NFT]
    assert all(place.settings.exact for place in found.places)
    assert text(found).count("backend ") == 2


def test_something_foreign_in_a_chain_of_ours_is_named():
    machine = in_place(rules_for())
    foreign = Rule((Mark(7),), ACCEPT)
    live = edited(machine, "ISTIO_REDIRECT", foreign)
    found = report(live)
    assert found.state == "altered"
    assert "-A ISTIO_REDIRECT -m mark --mark 0x7 -j ACCEPT" in found.refused
    assert "refused   nothing may be changed: a chain with one of Istio's names" in text(found)


def test_ambient_mode_owns_everything():
    ambient = Table(IPV4, "nat", (Chain("ISTIO_PRERT"), Chain("ISTIO_OUTPUT", (Rule((), RETURN),))))
    for live in (Live({IPTABLES_NFT: (ambient,)}), Live({}, ambient=("inet istio-ambient-nat",))):
        found = report(live)
        assert (found.state, found.places) == ("ambient", ())
        assert "ambient mode" in text(found)
        assert document(found)["state"] == "ambient"


def test_what_istios_own_tools_left():
    left = Rule((Transport("tcp"), Mark(1337)), SaveMark())
    live = in_place(rules_for()).live()
    mangle = Table(IPV4, "mangle", (Chain("PREROUTING", (left,)),))
    live = live.replace(tables={**live.tables, IPTABLES_LEGACY: (*live.tables[IPTABLES_LEGACY], mangle)})
    found = report(live)
    assert found.state == "altered"
    assert len(found.leftovers) == 1
    assert "Istio's own tool (1.4 to today) has left -A PREROUTING" in text(found)
    assert list(found.leftovers) == document(found)["leftovers"]


def test_whole_rules_of_istios_own_tool_are_in_place():
    live = in_place(rules_for(interception_mode="TPROXY")).live()

    def plain(table: Table) -> Table:
        def rule(given: Rule) -> Rule:
            return given.replace(matches=tuple(m for m in given.matches if not isinstance(m, Comment)))

        chains = (c.replace(rules=tuple(map(rule, c.rules))) for c in table.chains)
        return table.replace(chains=tuple(chains))

    found = report(live.replace(tables={w: tuple(map(plain, t)) for w, t in live.tables.items()}))
    assert found.state == "in-place"
    assert found.leftovers == ()
    assert document(found)["places"][0]["without_comments"] is True
    assert "Istio's own tool made these rules" in text(found)
    assert all(row.reason for row in rows(found))


def test_rules_that_anyone_could_have_written_are_named():
    machine = in_place(rules_for())
    machine.add_rules(IPTABLES_LEGACY, IPV4, "nat", "PREROUTING", Rule((InInterface("eth1"),), RETURN))
    found = report(machine.live())
    assert found.state == "in-place"
    assert "iptables-legacy -t nat -D PREROUTING -i eth1 -j RETURN" in text(found)
    assert list(found.unclaimed) == document(found)["unclaimed"]


def test_a_table_that_iptables_cannot_read_has_no_counters():
    live = in_place(rules_for(), IPTABLES_NFT).live()
    (table,) = live.tables[IPTABLES_NFT]
    unreadable = UnreadableTable(IPV4, "nat", "script", table)
    found = report(live.replace(tables={**live.tables, IPTABLES_NFT: ()}, unreadable=(unreadable,)))
    assert found.places[0].settings.exact
    assert {rule["packets"] for rule in json_rules(found)} == {None}
    assert re.search(r"(?m)^ +- +-  -j ISTIO_OUTPUT$", text(found))
    assert "iptables cannot read the nft table ip nat" in text(found)
    assert [note.code for note in notes(found)] == ["nat-counts-connections", "not-counted"]


def test_foreign_rules_that_come_first_are_named():
    finding = Interference("ip nat", "DOCKER", "dnat to 10.0.0.1", "bypass", ("inbound TCP to port 80",))
    found = report(in_place(rules_for()).live()).replace(before=(finding,))
    assert "foreign: the foreign rule dnat to 10.0.0.1 (ip nat, chain DOCKER) comes before" in text(found)
    (shown,) = document(found)["before"]
    assert (shown["rule"], shown["effect"], shown["traffic"]) == (
        *("dnat to 10.0.0.1", "bypass"),
        ["inbound TCP to port 80"],
    )

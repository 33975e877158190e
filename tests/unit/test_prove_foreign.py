"""Foreign rules: prove names the property that they break, with a packet that gets another verdict."""

from __future__ import annotations

import json
import warnings

import pytest

from istio_iptables import configure
from istio_iptables.interpreter.completed import completed
from istio_iptables.interpreter.explore import explore
from istio_iptables.interpreter.routing import Address, Network
from istio_iptables.prove.proof import Property
from istio_iptables.prove.ways import assumed, judged
from istio_iptables.settings.config import Config
from istio_iptables.trace import dumps
from istio_iptables.trace.world import proxy_of
from tests.support.judging import Edit, before, nothing, world_of_scripts
from tests.support.rulesets import BOTH

pytestmark = pytest.mark.slow

TPROXY = {"istio-inbound-interception-mode": "TPROXY"}
DNS = {"redirect-dns": "true"}


def _filter(*rules: str) -> str:
    return _table("filter", ("INPUT", "FORWARD", "OUTPUT"), rules)


def _mangle(*rules: str) -> str:
    return _table("mangle", ("PREROUTING", "INPUT", "OUTPUT"), rules)


def _table(name: str, chains: tuple[str, ...], rules: tuple[str, ...]) -> str:
    declared = [f":{chain} ACCEPT [0:0]" for chain in chains]
    return "\n".join((f"*{name}", *declared, *rules, "COMMIT"))


def _config(settings: dict[str, str]) -> Config:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return configure(settings, environment=BOTH)


def _judged(settings: dict[str, str], edit: Edit, foreign: str) -> dict[str, Property]:
    config = _config(settings)
    world = world_of_scripts(config, assumed(config), edit, foreign=foreign)
    found = {each.name: each for each in judged(config, world) if each.status != "PROVED"}
    for each in found.values():
        for one in each.counterexamples:
            if not one.depends_on:
                verdict = explore(world, one.packet, one.packets.direction, proxy_of(config)).verdict
                assert verdict == one.found
    return found


_TO_ITSELF = "-j DNAT --to-destination 127.0.0.1:15001"
FIRST_OUT, FIRST_IN = "-A OUTPUT -j ISTIO_OUTPUT", "-A PREROUTING -p tcp -j ISTIO_INBOUND"

#: Settings, what comes before our rules, and for a broken property the verdict and a field of the packet.
BROKEN = [
    pytest.param(
        {},
        before(FIRST_IN, "-A PREROUTING -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80"),
        "",
        {"inbound-captured": ("translated 172.17.0.2:80", "destination_port", 8080)},
        id="a port that docker publishes",
    ),
    pytest.param(
        DNS,
        before(FIRST_OUT, "-A OUTPUT -d 10.0.0.1/32 -p udp -m udp --dport 53 -j DNAT --to-destination :5353"),
        "",
        {
            "dns": ("translated 10.0.0.1:5353", "destination_port", 53),
            "proxy-left-alone": ("translated 10.0.0.1:5353", "uid", 1337),
        },
        id="a DNS server with another port",
    ),
    pytest.param(
        {},
        before(FIRST_OUT, "-A OUTPUT -d 10.1.0.0/16 -j ACCEPT"),
        "",
        {"outbound-captured": ("direct", "destination", 0x0A010001)},
        id="an ACCEPT",
    ),
    pytest.param(
        {},
        nothing,
        _filter("-A OUTPUT -p tcp -m tcp --dport 25 -j DROP"),
        {
            # The filter sees the port after REDIRECT: only what is left alone is dropped.
            "proxy-left-alone": ("dropped", "destination_port", 25),
            "own-pod": ("dropped", "destination_port", 25),
            "later-packets": ("dropped", "destination_port", 25),
            "invalid": ("dropped", "destination_port", 25),
            "nothing-dropped": ("dropped", "destination_port", 25),
        },
        id="a DROP behind ours",
    ),
    pytest.param(
        {},
        nothing,
        _filter("-A INPUT -p tcp -m tcp --dport 15006 -m conntrack --ctstate NEW -j REJECT"),
        {
            "inbound-captured": ("rejected", "received_on", "eth0"),
            "own-pod": ("rejected", "uid", 1337),
            "proxy-left-alone": ("rejected", "destination", 0x7F000001),
            "nothing-dropped": ("rejected", "received_on", "eth0"),
        },
        id="a REJECT of the proxy's port",
    ),
    pytest.param(
        TPROXY,
        before(FIRST_IN, "-A PREROUTING -i eth0 -p tcp -m tcp --dport 80 -j MARK --set-mark 1337"),
        "",
        {"inbound-captured": ("direct", "destination_port", 80)},
        id="the mark of TPROXY",
    ),
    pytest.param(
        {},
        before(FIRST_OUT, "-A OUTPUT -o eth0 -p tcp -m owner --uid-owner 1337 -j REDIRECT --to-ports 15001"),
        "",
        {"no-loop": ("loops", "uid", 1337), "proxy-left-alone": ("loops", "uid", 1337)},
        id="a loop",
    ),
    pytest.param(
        {},
        before(FIRST_OUT, "-A OUTPUT -o eth0 -p tcp -m owner --uid-owner 1337 " + _TO_ITSELF),
        "",
        {
            "no-loop": ("translated 127.0.0.1:15001", "uid", 1337),
            "proxy-left-alone": ("translated 127.0.0.1:15001", "uid", 1337),
        },
        id="a loop by DNAT",
    ),
    pytest.param(
        {},
        before(
            FIRST_OUT,
            "-A OUTPUT -o eth0 -p tcp -m owner --uid-owner 1337 -j DNAT --to-destination 127.0.0.1",
        ),
        "",
        {
            "proxy-left-alone": ("translated 127.0.0.1:80", "destination_port", 80),
            "no-loop": ("translated 127.0.0.1:15001", "destination_port", 15001),
        },
        id="a DNAT that keeps the port",
    ),
    pytest.param(
        {},
        nothing,
        _filter("-A INPUT -m conntrack --ctstate RELATED -j DROP"),
        {
            "later-packets": ("dropped", "state", "RELATED"),
            # the first packets of connections that were expected
            "inbound-captured": ("dropped", "state", "RELATED"),
            "outbound-captured": ("dropped", "state", "RELATED"),
            "own-pod": ("dropped", "state", "RELATED"),
            "proxy-left-alone": ("dropped", "state", "RELATED"),
            "tunnel-port": ("dropped", "state", "RELATED"),
            "udp": ("dropped", "state", "RELATED"),
            "nothing-dropped": ("dropped", "state", "RELATED"),
        },
        id="a DROP of errors",
    ),
]

#: Rules about what packets are not told apart by, and a property of which none may say that it is proved.
NOT_TOLD = [
    pytest.param("-A INPUT -p tcp --tcp-flags RST RST -j DROP", "later-packets", id="resets"),
    pytest.param("-A OUTPUT -p tcp ! --syn -j DROP", "outbound-captured", id="from the middle"),
    pytest.param("-A INPUT -m conntrack --ctdir REPLY -j DROP", "later-packets", id="answers"),
    pytest.param("-A INPUT -f -j DROP", "inbound-captured", id="further parts of packets"),
    pytest.param("-A OUTPUT -p icmp -m icmp --icmp-type 3/4 -j DROP", "udp", id="an error"),
]

#: What changes no verdict of ours.
HARMLESS = [
    pytest.param(nothing, _filter("-A INPUT -p tcp -j ACCEPT"), id="an ACCEPT behind ours"),
    pytest.param(nothing, _mangle("-A OUTPUT -j MARK --set-xmark 0x4000/0x4000"), id="a mark of others"),
    pytest.param(before(FIRST_IN, "-A PREROUTING -p udp -j ACCEPT"), "", id="UDP"),
]


@pytest.mark.parametrize(("settings", "edit", "foreign", "broken"), BROKEN)
def test_what_a_foreign_rule_breaks_is_refuted_with_a_packet(
    settings: dict[str, str], edit: Edit, foreign: str, broken: dict[str, tuple[str, str, object]]
) -> None:
    found = _judged(settings, edit, foreign)
    assert {name for name in found if not name.startswith("open-end: ")} == {*broken, "every-packet"}
    for name, (verdict, field, value) in broken.items():
        assert found[name].status == "REFUTED"
        assert any(
            str(one.found) == verdict and getattr(one.packet, field) == value
            for one in found[name].counterexamples
        )


@pytest.mark.parametrize(("edit", "foreign"), HARMLESS)
def test_what_breaks_nothing_is_not(edit: Edit, foreign: str) -> None:
    assert not _judged({}, edit, foreign)


@pytest.mark.parametrize(("foreign", "name"), NOT_TOLD)
def test_what_packets_are_not_told_apart_by_makes_it_depend(foreign: str, name: str) -> None:
    found = _judged({}, nothing, _filter(foreign))
    assert found[name].status == found["nothing-dropped"].status == "DEPENDS"
    assert any(foreign.split()[-1] in what for one in found[name].counterexamples for what in one.depends_on)


def test_a_table_of_nftables_is_judged_like_one_of_iptables() -> None:
    config = _config({})
    table = {"family": "inet", "table": "guard"}
    hook = {"type": "filter", "hook": "output", "prio": 0, "policy": "accept"}
    port = {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 15001}}
    objects = [
        {"table": {"family": "inet", "name": "guard"}},
        {"chain": {**table, "name": "out", **hook}},
        {"rule": {**table, "chain": "out", "handle": 1, "expr": [port, {"drop": None}]}},
    ]
    source = dumps.Source("nft", json.dumps({"nftables": objects}))
    world = world_of_scripts(config, assumed(config))
    tables = dumps.read([source], world.network).program.tables
    world = world.replace(program=world.program.replace(tables=(*tables, *world.program.tables)))
    found = {each.name: each for each in judged(config, world) if each.status != "PROVED"}
    [one, *_] = found["outbound-captured"].counterexamples
    assert (str(one.wanted), str(one.found)) == ("redirected 15001", "dropped")
    assert found["nothing-dropped"].status == "REFUTED"


def test_what_is_not_modelled_makes_it_depend() -> None:
    rule = "-A OUTPUT -p tcp -m recent --name x --rcheck -j ACCEPT"
    found = _judged({}, before(FIRST_OUT, rule), "")
    assert found["outbound-captured"].status == "DEPENDS"
    [one, *_] = found["outbound-captured"].counterexamples
    assert any("recent" in what for what in one.depends_on)


def test_a_namespace_may_have_no_interface_but_lo() -> None:
    config = _config({})
    network = completed(Network(addresses=(Address("lo", "ipv4", 0x7F000001, 8),)))
    found = judged(config, world_of_scripts(config, network))
    assert {each.status for each in found} == {"PROVED"}

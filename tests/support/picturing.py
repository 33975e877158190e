"""Picturing: subjects for tests of pictures, and what the text of a picture holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from istio_iptables import Config, Facts, configure
from istio_iptables.formats import iptables_dump
from istio_iptables.interpreter import iptables
from istio_iptables.interpreter.known import Known
from istio_iptables.pictures import subject
from istio_iptables.pictures.model import Picture, Row
from istio_iptables.pictures.subject import Subject
from istio_iptables.trace.world import text_of

SVG = "{http://www.w3.org/2000/svg}"
BOTH = Facts(True, True, ("10.96.0.10", "10.96.0.11", "fd00::a"))
IPV4 = Facts(True, False, ("10.96.0.10",))

#: Settings that show everything that a picture may have to show.
EVERYTHING: dict[str, Any] = {
    "interception_mode": "TPROXY",
    "inbound_ports": list(range(8000, 8020)),
    "interfaces_excluded": ["eth1"],
    "rerouted_interfaces": ["net1", "net2"],
    "outbound_cidrs": ["10.0.0.0/8", "fd00::/8"],
    "outbound_cidrs_excluded": ["10.1.0.0/16", "10.2.0.0/16", "fd01::/16"],
    "outbound_ports": [9000, 9001],
    "outbound_ports_excluded": [22, 25],
    "redirect_dns": True,
    "drop_invalid": True,
    "dual_stack": True,
    "proxy_uids": [1337, 1338],
    "owner_groups_excluded": [5, 6],
}
#: Settings by a word, with the facts that they are for, and whether the rules are native ones.
CASES: dict[str, tuple[dict[str, Any], Facts, bool]] = {
    "defaults": ({}, IPV4, False),
    "native": ({}, IPV4, True),
    "both families": ({"dual_stack": True}, BOTH, False),
    "native, both families": ({"dual_stack": True}, BOTH, True),
    "everything": (EVERYTHING, BOTH, False),
    "native, everything": (EVERYTHING, BOTH, True),
    "DNS": ({"redirect_dns": True, "capture_all_dns": True}, IPV4, False),
    "nothing inbound": ({"inbound_ports": []}, IPV4, False),
    "hundreds of rules": ({"inbound_ports_excluded": list(range(1, 999, 3))}, IPV4, False),
}


#: Rules of other programs at hooks of their own, as iptables-save prints them.
FOREIGN = """\
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
[5:300] -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
[7:420] -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
[0:0] -A DOCKER -i docker0 -j RETURN
[0:0] -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:USER - [0:0]
[9:900] -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
[2:120] -A INPUT -p tcp -m multiport --dports 22,80,443 -j ACCEPT
[0:0] -A INPUT -m string --string "<evil>" --algo bm -j REJECT
[1:60] -A INPUT -m limit --limit 5/min -j LOG --log-prefix "denied: "
[0:0] -A FORWARD -j USER
[0:0] -A USER -s 10.0.0.0/8 -j RETURN
[0:0] -A USER -j ACCEPT
COMMIT
"""


def among_others() -> tuple[Config, Subject]:
    """Return the default rules among foreign ones, as they are read from a kernel, with their counters."""
    config, shown = case("defaults")
    known = Known(shown.world.network)
    foreign = [
        iptables.compiled(table.table("ipv4"), "iptables-legacy", text_of, known, table.policies)
        for table in iptables_dump.read(FOREIGN).tables
    ]
    tables = (*foreign, *shown.world.program.tables)
    world = shown.world.replace(program=shown.world.program.replace(tables=tables))
    return config, subject.of_world(world, shown.proxy)


def case(name: str) -> tuple[Config, Subject]:
    """Return the Config and the subject of a case."""
    settings, facts, native = CASES[name]
    config = configure(settings_of(settings), environment=facts)
    return config, subject.of_config(config, native=native)


def settings_of(fields: dict[str, Any]) -> dict[str, Any]:
    """Return settings by their flags."""
    from istio_iptables.settings.declared import SETTINGS

    names = {setting.field: setting.name for setting in SETTINGS if setting.field}
    return {names[field]: value for field, value in fields.items()}


def numbers(row: Row) -> Iterator[tuple[str, int]]:
    """Yield the table and the number of each rule that a row stands for."""
    for span in row.spans:
        for number in range(span.first, span.last + 1, span.step):
            yield span.table, number


def words_of(row: Row) -> str:
    """Return the words that every writer has to have of a row: its first ones."""
    return (row.reason or row.condition()).split()[0]


def svg_texts(text: str) -> str:
    """Return all text of an SVG, by XML's own parser, which refuses what is not well formed."""
    root = ElementTree.fromstring(text)
    return " ".join(each.text or "" for each in root.iter(f"{SVG}text"))


def plain(text: str) -> str:
    """Return words alone, so that line breaks and markup make no difference."""
    return " ".join(re.findall(r"[\w.:/]+", text))


def rows_of(picture: Picture) -> list[Row]:
    """Return all rows."""
    return [row for *_, row in picture.rows()]

"""dumps: a text that `trace --file`, `prove --file` and `report --file` are given, whatever printed it.

It is refused, or what was not read of it is said. Through the rules that were read every packet has a way,
or several, that end: an answer in text and in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from istio_iptables.api import configure
from istio_iptables.errors import DumpError, SettingsError
from istio_iptables.interpreter.journey import World
from istio_iptables.pictures.asked import asked
from istio_iptables.settings.facts import Facts
from istio_iptables.trace import document, dumps, text
from istio_iptables.trace.answer import answer
from istio_iptables.trace.owned import places
from istio_iptables.trace.packet import complete
from istio_iptables.trace.world import network_of, proxy_of
from tests.fuzz import iptables_save, nft_json
from tests.fuzz.holding import allowed, files, printable, text_of

_FACTS = Facts(True, True)
_PROXY = proxy_of(configure({"dual-stack": "true"}, environment=_FACTS))
_PACKETS = [
    asked(words, _FACTS)
    for words in (
        "out --to 10.8.1.1:80 --uid 1000",
        "out --to [fd00::9]:53 --udp --uid 1337",
        "in --to 10.0.0.2:8080 --iface eth0",
        "in --to [fd00::2]:15008 --iface eth0 --ctstate ESTABLISHED --mark 1337",
    )
]


def corpus() -> Iterator[bytes]:
    yield from iptables_save.corpus()
    yield from nft_json.corpus()
    ip = files("tests/fixtures/ip/*")
    yield from ip
    yield b"".join([*ip[1:], *files("tests/fixtures/iptables/ufw-legacy.txt")])
    yield from files("tests/fixtures/iptables/*.ipset")
    yield b"create web hash:ip family inet hashsize 1024 maxelem 65536\nadd web 10.0.0.9\n"


def check(data: bytes) -> None:
    given = text_of(data)
    if given is None:
        return
    rules = allowed(lambda: dumps.read([dumps.Source("given", given)]), DumpError)
    if rules is None:
        return
    printable([*rules.read, *rules.unread, *rules.assumed])
    text.read(rules)
    list(places(rules))
    for packet in _PACKETS:
        network = rules.network or network_of(packet.own, packet.question)
        try:
            complete_packet = complete(packet.question, network, _PROXY)
        except SettingsError:  # not in a network such as this
            continue
        found = answer(World(rules.program, network), complete_packet, _PROXY)
        text.text(found)
        json.dumps(document.document(found))

"""What conntrack keeps of a first packet, and finds again with a later one: every field by itself."""

from __future__ import annotations

import pytest

from istio_iptables.interpreter.connection import Connection, connection_of, found, translation
from istio_iptables.interpreter.packet import TCP, Packet
from istio_iptables.trace import document
from tests.support.cases import all_cases

APP, SERVICE, BACKEND = 0x0A000002, 0x0A600001, 0x0A000009
#: A connection from the application to a service, of which nat has changed the destination; all differ.
KEPT = Connection(
    (APP, 40000, SERVICE, 80),
    (BACKEND, 8080, APP, 40000),
    zone=1,
    reply_zone=2,
    mark=0x77,
    replied=True,
    translated=True,
    source_translated=None,
    redirected=15001,
)
THERE = Packet("ipv4", TCP, APP, SERVICE, 40000, 80, zone=1, connection=KEPT)
BACK = Packet("ipv4", TCP, BACKEND, APP, 8080, 40000, reply_zone=2, connection=KEPT)
ENDS = {
    "original_source": APP,
    "original_source_port": 40000,
    "original_destination": SERVICE,
    "original_port": 80,
    "reply_source": BACKEND,
    "reply_source_port": 8080,
    "reply_destination": APP,
    "reply_port": 40000,
}


def test_a_packet_of_the_way_there_has_all_of_its_connection():
    noted = {
        "connection_mark": 0x77,
        "zone": 1,
        "reply_zone": 2,
        "translated": True,
        "source_translated": None,
    }
    assert found(THERE) == THERE.replace(
        first=False, direction="original", state="ESTABLISHED", redirected=15001, **noted, **ENDS
    )
    # The port is that of the way there: what comes back was redirected nowhere.
    assert found(BACK) == BACK.replace(
        first=False, direction="reply", state="ESTABLISHED", redirected=0, **noted, **ENDS
    )


def test_a_connection_without_an_answer_is_new_until_there_is_one():
    unanswered = KEPT.replace(replied=False)
    assert found(THERE.replace(connection=unanswered)).state == "NEW"
    assert found(BACK.replace(connection=unanswered)).state == "ESTABLISHED"


@all_cases("packet", [THERE.replace(zone=3), BACK.replace(reply_zone=3)])
def test_in_another_zone_it_is_the_first_of_another_connection(packet: Packet):
    seen = found(packet)
    ends = (packet.source, packet.source_port, packet.destination, packet.destination_port)
    originals = (
        seen.original_source,
        seen.original_source_port,
        seen.original_destination,
        seen.original_port,
    )
    assert (seen.connection, seen.first, seen.state, originals) == (None, True, "NEW", ends)
    invalid = packet.replace(state="INVALID")
    assert found(invalid) == invalid


def test_what_belongs_to_no_connection_stays_and_what_belongs_to_another_is_an_error():
    alone = THERE.replace(connection=None)
    assert found(alone) == alone
    for packet in (THERE.replace(destination_port=81), BACK.replace(source=SERVICE)):
        with pytest.raises(ValueError, match="the packet does not belong to the connection"):
            found(packet)


def test_from_a_port_to_itself_it_is_an_answer():
    same = (APP, 80, APP, 80)
    own = Packet("ipv4", TCP, APP, APP, 80, 80, connection=Connection(same, same))
    assert found(own).direction == "reply"


def test_the_connection_of_a_first_packet_is_that_of_its_end():
    sent = THERE.replace(connection=None)
    end = sent.replace(
        destination=BACKEND,
        destination_port=8080,
        zone=1,
        reply_zone=2,
        connection_mark=0x77,
        translated=True,
        source_translated=None,
        redirected=15001,
        confirmed=True,
    )
    assert connection_of(sent, end) == KEPT.replace(replied=False)
    assert connection_of(sent, end.replace(confirmed=False)) is None
    assert connection_of(sent, end.replace(state="INVALID")) is None
    assert connection_of(sent, end.replace(state="UNTRACKED")) is None


def test_nat_does_to_later_packets_what_it_did_to_the_first():
    there, back = found(THERE), found(BACK)
    assert (translation(there, "destination"), translation(there, "source")) == (
        (BACKEND, 8080),
        (APP, 40000),
    )
    assert (translation(back, "destination"), translation(back, "source")) == ((APP, 40000), (SERVICE, 80))
    for packet in (THERE, there.replace(state="UNTRACKED"), there.replace(connection=None)):
        assert translation(packet, "destination") is None


def test_an_address_that_is_not_known_is_null():
    shown = document.packet(THERE.replace(destination=None, source=None))
    assert (shown["source"], shown["destination"], shown["source_port"]) == (None, None, 40000)

"""The packet that a trace is asked about: how its options are written, and what is filled in and shown."""

from __future__ import annotations

import pytest

from istio_iptables.errors import SettingsError
from istio_iptables.interpreter.packet import ACK, ICMP, TCP, UDP
from istio_iptables.interpreter.routing import assumed_network
from istio_iptables.interpreter.verdict import Proxy
from istio_iptables.pictures.asked import asked
from istio_iptables.rules.model import NO_ID, Cidr
from istio_iptables.settings import packet_parsers
from istio_iptables.settings.packet_parsers import Endpoint
from istio_iptables.settings.parsers import BadValue
from istio_iptables.trace.packet import Asked, Question, complete, mistakes_in, words
from tests.support.cases import all_cases
from tests.support.tracing import FACTS, Case, source

V4, V6 = Cidr(4, 0x0A000001, 32), Cidr(6, (0xFD00 << 112) + 1, 128)

# --- how values are written -------------------------------------------------------------------


@all_cases(
    ("text", "found"),
    [
        ("", Endpoint()),
        ("10.0.0.1", Endpoint(V4)),
        ("10.0.0.1:80", Endpoint(V4, 80)),
        (":80", Endpoint(None, 80)),
        ("fd00::1", Endpoint(V6)),
        ("[fd00::1]", Endpoint(V6)),
        ("[fd00::1]:65535", Endpoint(V6, 65535)),
        ("[10.0.0.1]:80", Endpoint(V4, 80)),
    ],
)
def test_endpoints(text: str, found: Endpoint):
    assert packet_parsers.endpoint(text, FACTS) == found


@all_cases(
    ("option", "text", "problem"),
    [
        ("endpoint", "10.0.0.1:", "'10.0.0.1:' has no port after the colon"),
        ("endpoint", "[fd00::1]:", "'[fd00::1]:' has no port after the colon"),
        ("endpoint", "[fd00::1", "'[fd00::1' is not an address and port"),
        ("endpoint", "[fd00::1]80", "'[fd00::1]80' is not an address and port"),
        ("endpoint", "10.0.0.1:0", "'0' is not a port"),
        ("endpoint", "10.0.0.1:65536", "'65536' is not a port"),
        ("endpoint", "10.0.0.1:http", "'http' is not a port"),
        ("endpoint", "10.0.0.1:+80", "'+80' is not a port"),
        ("endpoint", "example.org:80", "'example.org:80' is not an address"),
        ("endpoint", "10.0.0:80", "'10.0.0:80' is not an address"),
        ("endpoint", "10.0.0.0/8:80", "'10.0.0.0/8:80' is not an address"),
        ("user", "nobody-here", "there is no user 'nobody-here' on this machine"),
        ("user", "4294967295", "'4294967295' is not a user ID"),
        ("user", "-1", "there is no user '-1'"),
        ("group", "nobody-here", "there is no group 'nobody-here' on this machine"),
        ("user_and_group", "none", "'none' is not a user, or a user and a group"),
        ("user_and_group", "1337:", "'1337:' is not a user, or a user and a group"),
        ("user_and_group", ":1337", "':1337' is not a user, or a user and a group"),
        ("mark", "0x100000000", "'0x100000000' is not a mark: use a number from 0 to 4294967295"),
        ("mark", "", "'' is not a mark"),
        ("mark", "1_0", "'1_0' is not a mark"),
        ("mark", "-1", "'-1' is not a mark"),
        ("protocol", "256", "'256' is not a protocol such as tcp, udp or icmp: use a number from 0 to 255"),
        ("protocol", "tpc", "'tpc' is not a protocol"),
        ("zone", "65536", "'65536' is not a conntrack zone: use a number from 0 to 65535"),
        ("own_addresses", "10.0.0.1,x", "'x' is not an address"),
        ("interface", "eth0,eth1", "'eth0,eth1' is not the name of one interface"),
        ("interface", "eth+", "'eth+' is not the name of one interface"),
        ("interface", "a/b", "'a/b' is not an interface"),
        ("interface", "a-name-of-16-chr", "'a-name-of-16-chr' is not an interface"),
        ("verdict", "gone", "'gone' is not a verdict"),
        ("verdict", "redirected 1 2", "'redirected 1 2' is not a verdict"),
        ("verdict", "redirected 15001x", "'redirected 15001x' is not a verdict"),
        ("verdict", "tproxied 0", "'tproxied 0' is not a verdict"),
        ("verdict", "direct 80", "'direct 80' is not a verdict"),
        ("verdict", "translated :80", "'translated :80' is not a verdict"),
    ],
)
def test_bad_values(option: str, text: str, problem: str):
    with pytest.raises(BadValue) as raised:
        getattr(packet_parsers, option)(text, FACTS)
    assert [line.startswith(problem) for line in raised.value.problems] == [True], raised.value.problems


@all_cases(
    ("option", "text", "found"),
    [
        ("user", "", None),
        ("user", "app", 1000),
        ("user", "0", 0),
        ("user", "none", NO_ID),
        ("group", "web", 33),
        ("user_and_group", "", None),
        ("user_and_group", "1337", (1337, 1337)),
        ("user_and_group", "proxy:web", (1337, 33)),
        ("mark", "1337", 1337),
        ("mark", "0x539", 1337),
        ("protocol", "", None),
        ("protocol", "icmp", 1),
        ("protocol", "SCTP", 132),
        ("protocol", "47", 47),
        ("zone", "2", 2),
        ("own_addresses", "", ()),
        ("own_addresses", "10.0.0.1, fd00::1", (V4, V6)),
        ("interface", "", ""),
        ("interface", "eth0", "eth0"),
        ("verdict", "", ""),
        ("verdict", "direct", "direct"),
        ("verdict", "redirected 15001", "redirected 15001"),
        ("verdict", "redirected:15001", "redirected 15001"),
        ("verdict", "translated [fd00::1]:80", "translated [fd00::1]:80"),
    ],
)
def test_good_values(option: str, text: str, found: object):
    assert getattr(packet_parsers, option)(text, FACTS) == found


# --- what does not go together ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "mistakes"),
    [
        (Question("out"), ["--to: needs a port"]),
        (Question("out", Endpoint(V4)), ["--to: needs a port"]),
        (Question("out", Endpoint(None, 80)), ["--to: `trace out` needs an address"]),
        (Question("in", Endpoint(V4)), ["--to: needs a port"]),
        (Question("in", Endpoint(None, 80)), []),
        (Question("out", Endpoint(V4), protocol=ICMP), []),
        (Question("out", Endpoint(V4, 80), protocol=ICMP), ["--to and --from: this protocol has no ports"]),
        (Question("out", protocol=ICMP), ["--to: `trace out` needs an address"]),
        (Question("out", Endpoint(V4, 80), Endpoint(V6)), ["--from and --to: one is an IPv4 address"]),
        (
            Question("in", Endpoint(None, 80), uid=5, gid=5),
            ["--uid: a packet that comes in belongs to no socket", "--gid: a packet that comes in"],
        ),
    ],
)
def test_mistakes_are_all_said(question: Question, mistakes: list[str]):
    found = mistakes_in(question)
    assert len(found) == len(mistakes)
    assert all(line.startswith(begins) for line, begins in zip(found, mistakes, strict=True)), found


def test_an_interface_has_to_be_there_where_that_is_known():
    network = assumed_network([("eth0", V4)], why="").replace(assumed=())
    question = Question("out", Endpoint(V4, 80), interface="eth7")
    with pytest.raises(SettingsError) as error:
        complete(question, network, Proxy())
    assert error.value.mistakes == (
        "--iface: 'eth7' is not an interface of this network namespace (it has lo, eth0)",
    )


# --- what is filled in ------------------------------------------------------------------------


def filled(case: Case) -> dict[str, tuple[str, str]]:
    return {each.what: (each.value, each.why) for each in case.asked.filled}


def test_what_is_not_given_of_a_packet_that_is_sent():
    case = Case("out --to 10.1.2.3:80 --own 10.0.0.2")
    packet = case.asked.packet
    assert (packet.uid, packet.gid, source(packet), packet.protocol) == (1000, 1000, "10.0.0.2", TCP)
    assert filled(case) == {
        "source port": (str(packet.source_port), "a kernel gives some port"),
        "UID": ("1000", "a user that is not the proxy's"),
        "GID": ("1000", "the same as the UID"),
        "source": ("10.0.0.2", "the address of eth0"),
    }


def test_nothing_is_filled_in_that_is_given():
    given = (
        "--from 10.0.0.9:1234 --uid app --gid web --mark 0x7 --zone 3 --ctstate INVALID --udp --iface eth0"
    )
    case = Case(f"out --to 10.1.2.3:53 {given}")
    packet = case.asked.packet
    assert filled(case) == {}
    assert (packet.uid, packet.gid, packet.mark, packet.zone, packet.state) == (1000, 33, 7, 3, "INVALID")
    assert (packet.protocol, packet.source_port, packet.bound) == (UDP, 1234, "eth0")


@pytest.mark.parametrize(
    ("state", "first"),
    [("NEW", True), ("RELATED", True), ("ESTABLISHED", False), ("INVALID", False), ("UNTRACKED", False)],
)
def test_nat_is_asked_for_the_first_packet_of_a_connection(state: str, first: bool):
    assert Case(f"out --to 10.1.2.3:80 --ctstate {state}").asked.packet.first is first


def test_a_protocol_without_ports_and_the_mark_of_a_connection():
    packet = Case("out --to 10.1.2.3 --protocol icmp --connmark 0x7 --ctstate ESTABLISHED").asked.packet
    assert (packet.protocol, packet.source_port, packet.destination_port) == (ICMP, 0, 0)
    assert (packet.connection_mark, packet.flags) == (7, ACK)
    assert Case("out --to 10.1.2.3:80 --protocol udp").asked.packet.protocol == UDP


def test_two_protocols_are_a_mistake():
    with pytest.raises(SettingsError, match="--udp and --protocol: two protocols"):
        Case("out --to 10.1.2.3:80 --udp --protocol sctp")


@pytest.mark.parametrize(
    "packet",
    [
        "out --uid 1000 --to 10.1.2.3:80",
        "out --uid 1000 --gid 33 --from 10.0.0.2:99 --to 10.1.2.3:53 --udp --iface eth0 --mark 0x7",
        "out --uid none --to 10.1.2.3 --protocol 47 --connmark 0x9 --ctstate INVALID --zone 2",
        "in --from fd00::9 --to [fd00::2]:80 --iface eth1",
        "in --to :80",
    ],
)
def test_a_question_is_written_as_it_is_read(packet: str):
    assert " ".join(words(asked(packet, FACTS).question)) == packet


def test_the_application_is_somebody_else_than_the_proxy():
    assert Case("out --to 10.1.2.3:80", "-u 1000,1001").asked.packet.uid == 1002


def test_a_packet_without_a_socket_has_no_user_and_no_group():
    packet = Case("out --to 10.1.2.3:80 --uid none").asked.packet
    assert (packet.uid, packet.gid) == (NO_ID, NO_ID)


@pytest.mark.parametrize(
    ("to", "own", "expected"),
    [
        ("127.0.0.1:80", "10.0.0.2", ("127.0.0.1", "the address of lo")),
        ("127.0.0.5:80", "10.0.0.2", ("127.0.0.1", "the address of lo")),  # ip route get 127.0.0.5
        ("10.0.0.2:80", "10.0.0.2", ("10.0.0.2", "the address of eth0")),
        ("[2001:db8::9]:80", "10.0.0.2,fd00::2", ("fd00::2", "the address of eth0")),
        ("[::1]:80", "fd00::2", ("::1", "the address of lo")),
        ("10.1.2.3:80", "fd00::2", ("198.51.100.2", "no own address is known: give --own")),
    ],
)
def test_sources(to: str, own: str, expected: tuple[str, str]):
    assert filled(Case(f"out --to {to} --own {own}"))["source"] == expected


def test_without_own_addresses_that_is_said():
    why = "no own address is known: give --own"
    assert filled(Case("out --to 10.1.2.3:80"))["source"] == ("198.51.100.2", why)
    assert filled(Case("out --to [fd00::9]:80"))["source"] == ("2001:db8::2", why)
    assert filled(Case("in --to :80"))["destination"] == ("198.51.100.2", why)


@pytest.mark.parametrize(
    ("packet", "destination"),
    [
        ("out --to 0.0.0.0:80", "127.0.0.1"),
        ("out --to 0.0.0.0:80 --from 10.0.0.2", "10.0.0.2"),
        ("out --to [::]:80", "::1"),
    ],
)
def test_who_dials_no_address_dials_this_machine(packet: str, destination: str):
    assert filled(Case(packet))["destination"][0] == destination


def test_what_is_not_given_of_a_packet_that_comes_in():
    case = Case("in --to :8080 --own 10.0.0.2")
    assert filled(case) == {
        "family": ("IPv4", "no address was given"),
        "source port": ("40000", "a kernel gives some port"),
        "destination": ("10.0.0.2", "the address of eth0"),
        "interface": ("eth0", "the interface that has the address"),
        "source": ("198.51.100.1", "some peer"),
    }
    assert (case.asked.packet.uid, case.asked.packet.received_on) == (NO_ID, "eth0")


def test_the_family_is_that_of_the_address_that_is_given():
    assert Case("in --to :80 --from fd00::9 --own fd00::2").asked.packet.family == "ipv6"
    case = Case("in --to [fd00::2]:80")
    assert source(case.asked.packet) == "2001:db8::1"


def test_an_interface_that_only_the_question_names_has_an_address_for_example():
    case = Case("out --to 10.1.2.3:80 --iface eth1 --own 10.0.0.2")
    assert filled(case)["source"] == ("198.51.100.3", "an example: no address of eth1 is known")
    assert filled(Case("out --to 10.1.2.3:80 --own 10.0.0.2"))["source"][0] == "10.0.0.2"


def test_the_interface_that_was_given_is_that_it_comes_in_by():
    assert Case("in --to :80 --iface eth1").asked.packet.received_on == "eth1"


def test_the_original_addresses_are_those_before_any_rule():
    found: Asked = Case("out --to 10.1.2.3:80 --own 10.0.0.2").asked
    packet = found.packet
    assert (packet.original_source, packet.original_destination) == (packet.source, packet.destination)
    assert (packet.original_source_port, packet.original_port) == (packet.source_port, 80)

"""--follow: the hops of a connection through the proxy, as Istio configures Envoy and its agent.

tests/e2e/test_follow.py holds the same against a real Envoy.
"""

from __future__ import annotations

import json

import pytest

from istio_iptables.interpreter.packet import endpoint_text
from istio_iptables.rules.model import Cidr
from istio_iptables.settings.packet_parsers import endpoint
from istio_iptables.trace import document, text
from istio_iptables.trace.follow import Choices, Followed
from tests.support.command import run
from tests.support.tracing import FACTS, Case, source

OWN = "--own 10.0.0.2,fd00::2"
#: Rules that exempt somebody else than the proxy.
NOT_EXEMPT = "-u 4242 -g 4242"


def hops(found: Followed) -> list[tuple[str, str, int, int, str]]:
    """Return of each hop source, destination, UID, mark and verdict."""
    return [
        (
            source(packet),
            endpoint_text(packet.family, packet.destination, packet.destination_port),
            packet.uid,
            packet.mark,
            str(hop.answer.verdict),
        )
        for hop in found.hops
        for packet in [hop.answer.asked.packet]
    ]


def chosen(text: str) -> Choices:
    return Choices(endpoint(text, FACTS))


def test_what_is_not_captured_has_one_hop():
    found = Case(f"out --to 10.1.2.3:80 {OWN}", "-x 10.1.0.0/16").followed()
    assert hops(found) == [("10.0.0.2", "10.1.2.3:80", 1000, 0, "direct")]
    assert (found.ending, str(found.verdict)) == ("leaves", "direct")
    assert found.conclusion == (
        "It leaves the pod for 10.1.2.3:80, from 10.0.0.2, without going through the proxy."
    )


def test_outbound_the_proxy_sends_it_on_as_its_own_user():
    found = Case(f"out --to 10.1.2.3:80 {OWN}").followed()
    assert hops(found) == [
        ("10.0.0.2", "10.1.2.3:80", 1000, 0, "redirected 15001"),
        ("10.0.0.2", "10.1.2.3:80", 1337, 0, "direct"),
    ]
    assert (found.ending, str(found.verdict)) == ("leaves", "redirected 15001")
    assert found.conclusion == (
        "It leaves the pod for 10.1.2.3:80, from 10.0.0.2, after it went through port 15001."
    )


def test_the_endpoint_may_be_the_pod_itself():
    found = Case(f"out --to 10.96.7.7:80 {OWN}").followed(chosen("10.0.0.2:8080"))
    assert hops(found) == [
        ("10.0.0.2", "10.96.7.7:80", 1000, 0, "redirected 15001"),
        ("10.0.0.2", "10.0.0.2:8080", 1337, 0, "redirected 15006"),
        ("127.0.0.6", "10.0.0.2:8080", 1337, 0, "direct"),
    ]
    assert found.ending == "arrives"
    assert found.conclusion.endswith("from 127.0.0.6, after it went through port 15001 and port 15006.")


def test_the_endpoint_may_be_of_the_other_family():
    found = Case(f"out --to 10.96.7.7:80 {OWN}", "--dual-stack").followed(chosen("[fd00::2]:8080"))
    assert [hop[:2] for hop in hops(found)] == [
        ("10.0.0.2", "10.96.7.7:80"),
        ("fd00::2", "[fd00::2]:8080"),
        ("::6", "[fd00::2]:8080"),
    ]


def test_inbound_the_proxy_calls_the_application_from_127_0_0_6():
    found = Case(f"in --from 10.0.0.9 --to :8080 {OWN}").followed()
    assert hops(found)[1:] == [("127.0.0.6", "10.0.0.2:8080", 1337, 0, "direct")]
    assert found.ending == "arrives"


@pytest.mark.parametrize(
    ("packet", "caller"),
    [("in --from 10.0.0.9 --to :8080", "10.0.0.9"), ("in --from fd00::9 --to :8080", "fd00::9")],
)
def test_in_tproxy_mode_it_calls_as_the_caller_with_the_mark(packet: str, caller: str):
    found = Case(f"{packet} {OWN}", "-m TPROXY --dual-stack").followed()
    [first, second] = hops(found)
    assert first[4] == "tproxied 15006"
    assert (second[0], second[2:]) == (caller, (0, 1337, "direct"))
    assert found.ending == "arrives"


def test_in_tproxy_mode_what_nat_redirects_is_called_on_as_the_caller_too():
    """The listener is transparent, however a connection comes to it."""
    found = Case(f"in --from fd00::9 --to :8080 {OWN}", "-m TPROXY --dual-stack -u 0 -g 0").followed()
    assert [hop[4] for hop in hops(found)[:2]] == ["tproxied 15006", "redirected 15006"]
    assert hops(found)[2][0] == "fd00::9"
    assert hops(found)[2][3] == 1337


# --- DNS --------------------------------------------------------------------------------------


def test_the_agent_asks_the_first_server():
    servers = (Cidr(4, 0x0A60000A, 32), Cidr(6, (0xFD00 << 112) + 10, 128))
    case = Case(f"out --udp --to 10.96.0.99:53 {OWN}", "--redirect-dns --capture-all-dns")
    assert hops(case.followed(Choices(servers=servers))) == [
        ("10.0.0.2", "10.96.0.99:53", 1000, 0, "redirected 15053"),
        ("10.0.0.2", "10.96.0.10:53", 1337, 0, "direct"),
    ]
    assert hops(case.followed())[1][1] == "10.96.0.99:53"


def test_an_agent_that_is_not_exempt_asks_itself():
    case = Case(f"out --udp --to 10.96.0.10:53 {OWN}", f"--redirect-dns {NOT_EXEMPT}")
    assert case.followed(Choices(user=(1337, 1337))).ending == "loops"


# --- loops, and other ends --------------------------------------------------------------------


def test_a_proxy_that_is_not_exempt_gets_its_own():
    found = Case(f"out --to 10.1.2.3:80 {OWN}", NOT_EXEMPT).followed(Choices(user=(1337, 1337)))
    assert (found.ending, str(found.verdict)) == ("loops", "loops")
    assert found.conclusion == "It loops: what the proxy sends comes back to port 15001 of the proxy."
    assert [hop[2] for hop in hops(found)] == [1000, 1337, 1337]


def test_a_proxy_that_is_exempt_by_its_group_alone_does_not_loop():
    found = Case(f"out --to 10.1.2.3:80 {OWN}", "-u 4242 -g 1337").followed(Choices(user=(5, 1337)))
    assert found.ending == "leaves"


def test_a_tproxy_proxy_with_the_uid_of_the_rules_gets_its_own_calls_to_the_application():
    """SPEC 8: it has to be of another user. IPv4 does not get that far: 127.0.0.1 cannot answer a caller."""
    user = Choices(user=(1337, 1337))
    six = Case(f"in --from fd00::9 --to :8080 {OWN}", "-m TPROXY --dual-stack").followed(user)
    assert six.ending == "loops"
    four = Case(f"in --from 10.0.0.9 --to :8080 {OWN}", "-m TPROXY").followed(user)
    assert four.ending == "ends"
    assert "no answer from 127.0.0.1 can get to 10.0.0.9" in four.conclusion


@pytest.mark.parametrize(
    ("packet", "count"),
    [
        ("in --to :15006", 1),  # to the inbound port itself
        ("in --to :15001", 2),  # by way of it to the outbound port
        ("out --to 10.0.0.2:15001", 1),
        ("out --to 127.0.0.1:15006", 1),
        ("out --to 10.1.2.3:15001", 1),
    ],
)
def test_the_proxy_closes_what_was_dialled_to_its_own_ports(packet: str, count: int):
    found = Case(f"{packet} {OWN}").followed()
    assert (len(found.hops), found.ending) == (count, "ends")
    assert found.conclusion.startswith("The proxy closes it: it was dialled to its own port 1500")


def test_what_a_bound_socket_sends_ends_before_the_proxy():
    found = Case(f"out --to 10.1.2.3:80 --iface eth0 {OWN}").followed()
    assert (len(found.hops), found.ending) == (1, "ends")
    assert "does not reach port 15001" in found.conclusion


def test_a_later_hop_that_depends_makes_it_depend():
    rule = "-A OUTPUT -p tcp --dport 80 -m string --string x --algo bm -j DROP"
    dump = f"*filter\n:OUTPUT ACCEPT [0:0]\n{rule}\nCOMMIT\n"
    found = Case(f"out --to 10.1.2.3:80 {OWN}", dump=dump).followed()
    assert [hop[4] for hop in hops(found)] == ["redirected 15001", "depends"]
    assert (found.ending, str(found.verdict)) == ("depends", "depends")
    assert found.conclusion.startswith("It is not known where it ends: It depends on")


def test_a_later_hop_that_is_dropped_ends_it():
    dump = "*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp --dport 80 -j DROP\nCOMMIT\n"
    found = Case(f"out --to 10.1.2.3:80 {OWN}", dump=dump).followed()
    assert found.ending == "ends"
    assert found.conclusion.startswith(
        "It ends, after it went through port 15001. The connection to 10.1.2.3:80 is"
    )


# --- words, JSON, the command -----------------------------------------------------------------


def test_what_is_taken_for_the_proxys_connection_is_shown():
    lines = text.followed(Case(f"out --to 10.1.2.3:80 {OWN}").followed()).splitlines()
    second = lines[lines.index("hop 2: the proxy, which sends it on") :]
    assert second[2:5] == [
        "filled in  destination 10.1.2.3:80: the original destination: --endpoint names another",
        "           source 10.0.0.2: the address of eth0",
        "           UID and GID 1337, 1337: the first of --proxy-uid and of --proxy-gid",
    ]
    assert lines[-3:-1] == ["all hops", "verdict    redirected 15001"]


def test_senders_are_named():
    senders = [
        Case(packet, settings).followed().hops[0].sender
        for packet, settings in (
            ("out --to 10.1.2.3:80", ""),
            ("out --to 10.1.2.3:80 --uid 1337", ""),
            ("in --to :80", ""),
        )
    ]
    assert senders == ["the application", "the proxy", "a caller outside of the pod"]


def test_the_keys_of_json_are_those_that_programs_know():
    found = document.followed(Case(f"out --to 10.1.2.3:80 {OWN}").followed())
    assert set(found) == {"hops", "ending", "verdict", "conclusion"}
    assert found["verdict"] == {"code": "redirected", "to": "15001"}
    assert found["ending"] == "leaves"
    assert [hop["sender"] for hop in found["hops"]] == ["the application", "the proxy, which sends it on"]


def test_the_command():
    packet = ("trace", "out", "--to", "10.96.7.7:80", "--own", "10.0.0.2", "--follow", "--json")
    done = run(*packet, "--endpoint", "10.0.0.2:8080", "--expect", "redirected 15001")
    assert done.status == 0
    assert (len(json.loads(done.output)["hops"]), json.loads(done.output)["ending"]) == (3, "arrives")
    looping = run(*packet, "-u", "4242", "--proxy-runs-as", "1337", "--expect", "redirected 15001")
    assert looping.status == 3
    assert json.loads(looping.output)["verdict"] == {"code": "loops", "to": ""}
    assert run(*packet, "-u", "4242", "--proxy-runs-as", "1337", "--expect", "loops").status == 0

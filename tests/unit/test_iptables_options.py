"""What options of iptables mean that this tool never writes: values from iptables-extensions(8).

The kernel has the last word on them in tests/kernel/test_iptables_meaning.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from istio_iptables.formats.iptables_args import rule_args
from istio_iptables.formats.iptables_restore import split_args
from istio_iptables.interpreter import iptables
from istio_iptables.interpreter.algebra import value_of
from istio_iptables.interpreter.condition import AllOf, Unmodelled, label
from istio_iptables.interpreter.iptables_options import foreign_match
from istio_iptables.interpreter.known import Known, Scope
from istio_iptables.interpreter.packet import Packet
from istio_iptables.rules import model
from istio_iptables.rules.model import NO_ID, Cidr, PortRange, Rule
from tests.support.cases import all_cases
from tests.support.meeting import meets, packet

# --- what is said of the packet itself --------------------------------------------------------------

FORWARDED = {"uid": NO_ID, "gid": NO_ID, "received_on": "eth1"}

#: Options, a packet that they accept, and one that they do not.
PLAIN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("-p udp", {"protocol": 17}, {"protocol": 6}),
    ("! -p tcp", {"protocol": 17}, {"protocol": 6}),
    ("-p 47", {"protocol": 47}, {"protocol": 46}),
    ("-p gre", {"protocol": 47}, {"protocol": 46}),
    ("-p esp", {"protocol": 50}, {"protocol": 51}),
    ("-p icmpv6", {"protocol": 58}, {"protocol": 1}),
    ("-p ipv6-icmp", {"protocol": 58}, {"protocol": 1}),
    ("-p sctp", {"protocol": 132}, {"protocol": 6}),
    ("-p mobility-header", {"protocol": 135}, {"protocol": 6}),
    ("-s 10.0.0.1/32", {}, {"source": "10.0.0.3"}),
    ("-s 10.0.0.0/255.0.255.0", {"source": "10.7.0.9"}, {"source": "10.7.1.9"}),
    ("! -s 10.0.0.0/255.0.255.0", {"source": "10.7.1.9"}, {"source": "10.7.0.9"}),
    ("-d 10.0.0.0/255.255.0.0", {"destination": "10.0.9.9"}, {"destination": "10.1.0.0"}),
    ("! -d 10.0.0.0/8", {"destination": "11.0.0.0"}, {"destination": "10.255.255.255"}),
    ("-d fd00::/64", {"destination": "fd00::9", "source": "::1"}, {"destination": "fd00:0:0:1::"}),
    ("-s fd00::1/ffff::ffff", {"source": "fd00:5::1"}, {"source": "fd00::2"}),
    ("-d 10.0.0.2", {}, {"destination": "10.0.0.3"}),
    ("-i eth0", {"received_on": "eth0"}, {"received_on": "eth01"}),
    ("-i eth+", {"received_on": "eth01"}, {"received_on": "et"}),
    ("! -i eth0", {"received_on": "lo"}, {"received_on": "eth0"}),
    ("! -o eth+", {"sent_to": "lo"}, {"sent_to": "eth7"}),
    ("-i +", {"received_on": "x"}, {"received_on": "x", "protocol": None}),
    ("-f", {"fragment": True}, {"fragment": False}),
    ("! -f", {"fragment": False}, {"fragment": True}),
    ("-p tcp -m tcp --sport 1:1023", {"source_port": 1023}, {"source_port": 1024}),
    ("-p tcp -m tcp ! --sport 1:1023", {"source_port": 1024}, {"source_port": 1}),
    ("-p tcp -m tcp --dport :80", {"destination_port": 0}, {"destination_port": 81}),
    ("-p tcp -m tcp --dport 80:", {"destination_port": 65535}, {"destination_port": 79}),
    ("-p tcp --dport 80", {}, {"protocol": 17}),
    ("-p tcp --dport 80", {}, {"destination_port": 81}),
    ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", {"flags": 0x02}, {"flags": 0x12}),
    ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", {"flags": 0x22}, {"flags": 0x03}),
    ("-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN", {"flags": 0x10}, {"flags": 0x02}),
    ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE", {"flags": 0}, {"flags": 1}),
    ("-p tcp -m tcp --tcp-flags ALL ALL", {"flags": 0x3F}, {"flags": 0x1F}),
    ("-p tcp -m tcp --syn", {"flags": 0x02}, {"flags": 0x10}),
    ("-p tcp -m tcp ! --syn", {"flags": 0x10}, {"flags": 0x02}),
    (
        "-p udp -m udp --sport 53 --dport 53",
        {"protocol": 17, "source_port": 53, "destination_port": 53},
        {"protocol": 17, "source_port": 53},
    ),
    ("-p sctp -m sctp --dport 80", {"protocol": 132}, {"protocol": 132, "destination_port": 81}),
    ("-p dccp -m dccp ! --sport 5", {"protocol": 33}, {"protocol": 33, "source_port": 5}),
    ("-p icmp -m icmp --icmp-type 8", {"protocol": 1, "icmp_type": 8}, {"protocol": 1, "icmp_type": 0}),
    ("-p icmp -m icmp --icmp-type echo-request", {"protocol": 1}, {"protocol": 1, "icmp_type": 0}),
    (
        "-p icmp -m icmp --icmp-type 3/4",
        {"protocol": 1, "icmp_type": 3, "icmp_code": 4},
        {"protocol": 1, "icmp_type": 3, "icmp_code": 3},
    ),
    (
        "-p icmp -m icmp ! --icmp-type 3/4",
        {"protocol": 1, "icmp_type": 3, "icmp_code": 3},
        {"protocol": 1, "icmp_type": 3, "icmp_code": 4},
    ),
    ("-p icmp -m icmp --icmp-type any", {"protocol": 1, "icmp_type": 77}, {"protocol": 6}),
    (
        "-p ipv6-icmp -m icmp6 --icmpv6-type 128",
        {"protocol": 58, "icmp_type": 128},
        {"protocol": 58, "icmp_type": 129},
    ),
    (
        "-p ipv6-icmp -m icmp6 --icmpv6-type 255",
        {"protocol": 58, "icmp_type": 255},
        {"protocol": 58, "icmp_type": 1},
    ),
    ("-p tcp -m multiport --ports 22,80:81", {"destination_port": 81}, {"destination_port": 82}),
    (
        "-p tcp -m multiport --ports 22,80:81",
        {"source_port": 22, "destination_port": 9},
        {"source_port": 23, "destination_port": 9},
    ),
    ("-p tcp -m multiport --sports 22,80:81", {"source_port": 80}, {"source_port": 82}),
    ("-p tcp -m multiport ! --dports 22,80:81", {"destination_port": 23}, {"destination_port": 22}),
    ("-p tcp -m multiport ! --ports 22,80", {"destination_port": 23}, {"destination_port": 80}),
    ("-m mark --mark 0x5", {"mark": 5}, {"mark": 7}),
    ("-m mark --mark 0x10/0xf0", {"mark": 0x1F}, {"mark": 0x2F}),
    ("-m mark ! --mark 0x0/0xf0", {"mark": 0x10}, {"mark": 0x0F}),
    ("-m connmark --mark 0x10/0xf0", {"connection_mark": 0x1F}, {"connection_mark": 0x2F}),
    ("-m owner --uid-owner 1000", {}, {"uid": 1001}),
    ("-m owner --uid-owner 999-1001", {}, {"uid": 1002}),
    ("-m owner --uid-owner 1000:1000", {}, {"uid": NO_ID}),
    ("-m owner ! --uid-owner 1000", {"uid": NO_ID}, {"uid": 1000}),
    ("-m owner --gid-owner 1000", {}, {"gid": 5, "groups": (1000,)}),
    ("-m owner --gid-owner 5 --suppl-groups", {"groups": (4, 5)}, {"groups": (4,)}),
    ("-m owner --gid-owner 1000 --suppl-groups", {"groups": ()}, {"uid": NO_ID, "gid": NO_ID}),
    ("-m owner ! --gid-owner 5 --suppl-groups", {"groups": (4,)}, {"groups": (5,)}),
    ("-m owner ! --gid-owner 5 --suppl-groups", {}, FORWARDED),
    ("-m owner --socket-exists", {}, FORWARDED),
    ("-m owner ! --socket-exists", FORWARDED, {}),
    ("-m iprange --src-range 10.0.0.1-10.0.0.9", {"source": "10.0.0.9"}, {"source": "10.0.0.10"}),
    ("-m iprange ! --dst-range 10.0.0.1-10.0.0.9", {"destination": "10.0.0.10"}, {"destination": "10.0.0.1"}),
    ("-m iprange --src-range fd00::1-fd00::5", {"source": "fd00::5"}, {"source": "fd00::6"}),
    ("-m pkttype --pkt-type multicast", {"packet_type": "multicast"}, {"packet_type": "unicast"}),
    ("-m pkttype ! --pkt-type unicast", {"packet_type": "broadcast"}, {"packet_type": "unicast"}),
]


@all_cases(("options", "accepted", "refused"), PLAIN, ids=[row[0] for row in PLAIN])
def test_options_accept_what_the_manual_says(options: str, accepted: dict[str, Any], refused: dict[str, Any]):
    assert meets(options, **accepted) is True
    if options != "-i +":  # which accepts everything
        assert meets(options, **refused) is False


def test_what_accepts_everything_is_no_condition():
    for options in (
        "-m comment --comment hello",
        "-p all",
        "-p 0",
        "-m tcp",
        "-m multiport",
        "-m icmp --icmp-type any",
    ):
        assert foreign_match(split_args(options)) == AllOf()


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ("-s ! 10.0.0.0/8 -i ! eth0", "! -s 10.0.0.0/8 ! -i eth0"),
        ("-p ! tcp", "! -p tcp"),
        ("-p tcp -m tcp --dport ! 80", "-p tcp -m tcp ! --dport 80"),
        ("-p tcp -m tcp --tcp-flags ! SYN,RST,ACK SYN", "-p tcp -m tcp ! --tcp-flags SYN,RST,ACK SYN"),
        ("-m mark --mark ! 0x1", "-m mark ! --mark 0x1"),
    ],
)
def test_a_negation_may_stand_after_the_option_as_iptables_1_4_2_printed_it(options: str, same: str):
    assert foreign_match(split_args(options)) == foreign_match(split_args(same))


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ("--source 10.0.0.1 --in-interface eth0 --protocol tcp", "-s 10.0.0.1 -i eth0 -p tcp"),
        ("-p tcp -m tcp --source-port 5 --destination-port 6", "-p tcp -m tcp --sport 5 --dport 6"),
        ("-p tcp -m multiport --source-ports 5,6", "-p tcp -m multiport --sports 5,6"),
        ("-p icmpv6 --icmpv6-type 1", "-p ipv6-icmp -m icmp6 --icmpv6-type 1"),
    ],
)
def test_options_have_further_names(options: str, same: str):
    assert foreign_match(split_args(options)) == foreign_match(split_args(same))


# --- what is not modelled -----------------------------------------------------------------------------


UNMODELLED = [
    "-m limit --limit 5/sec --limit-burst 9",
    "-m statistic --mode random --probability 0.33300000010",
    "-m hashlimit --hashlimit-upto 5/sec --hashlimit-burst 5 --hashlimit-mode srcip --hashlimit-name foo",
    "-m recent --set --name x --mask 255.255.255.255 --rsource",
    "-m connlimit --connlimit-above 5 --connlimit-mask 32 --connlimit-saddr",
    "-m time --timestart 10:00:00 --weekdays Mon,Tue",
    "-m physdev ! --physdev-in eth0",
    "-m rpfilter --loose --invert",
    "-m socket",
    "-m socket --nowildcard",
    "-m u32 --u32 0x6&0xff=0x6",
    "-m string --string x --algo bm",
    "-m bpf --bytecode 1,6",
    "-m length --length 1:5",
    "-m ttl --ttl-gt 3",
    "-m policy --dir in --pol none",
    "-m something-new --that 1 2 --flag",
    "-m tcp --tcp-option 5",
    "-m multiport [unsupported revision]",
    "-m mark [unsupported revision]",
    "-m conntrack --ctexpire 10:20",
    "-m owner --uid-owner root",
    "-m conntrack --ctstate BROKEN",
    "-m addrtype --dst-type HOME",
]


@all_cases("options", UNMODELLED)
def test_what_is_not_modelled_keeps_its_words_and_hides_nothing(options: str):
    """A rule with such a match is not met if another of its options is not, and cannot be told if that is."""
    parts = foreign_match(split_args(options))
    assert isinstance(parts, AllOf)
    assert Unmodelled(options) in parts.parts
    assert meets(f"-d 10.0.0.9/32 -p tcp {options}") is False
    assert meets(f"-p tcp {options}") is None
    assert meets(f"{options} -m mark --mark 0x1", mark=2) is False


def test_an_option_that_is_not_known_is_not_modelled():
    for options in ("--surprise 5", "-x", "! --surprise", "-m tcp --dport"):
        assert meets(options) is None


def test_an_option_belongs_to_the_last_match_that_has_it():
    between = "-m conntrack -m mark --mark 0x1 --ctstate NEW"
    assert meets(between, mark=1) is True
    assert meets(between, mark=1, state="INVALID") is False
    # What is not known may have any option, also one that a match before it has.
    for state in ("NEW", "INVALID"):
        assert meets("-m conntrack -m surprise --ctstate NEW", state=state) is None


def test_the_value_of_a_text_may_look_like_an_option():
    assert foreign_match(["-m", "string", "--string", "-p", "--algo", "bm", "-p", "udp"]).parts == (  # type: ignore[attr-defined]
        *foreign_match(["-p", "udp"]).parts,  # type: ignore[attr-defined]
        Unmodelled("-m string --string -p --algo bm"),
    )


def test_each_option_is_a_part_with_a_label():
    options = (
        "-s 10.0.0.0/8 ! -i eth0 -p tcp -m tcp --dport 80 -m owner ! --uid-owner 0 -m conntrack --ctstate NEW"
    )
    found = foreign_match(split_args(options))
    assert isinstance(found, AllOf)
    assert [label(part) for part in found.parts] == [
        "source address",
        "incoming interface",
        "protocol",
        "destination port",
        "UID",
        "conntrack state",
    ]


def test_fields_that_are_not_known_cannot_be_told():
    assert meets("-m pkttype --pkt-type unicast") is None
    assert meets("-m conntrack --ctorigdst 10.0.0.2") is None
    assert meets("-m conntrack --ctorigsrcport 1:9") is None


def test_whether_the_kernel_itself_has_a_socket_for_what_it_sends_cannot_be_told():
    for options in ("--socket-exists", "! --socket-exists", "! --gid-owner 5 --suppl-groups"):
        assert meets(f"-m owner {options}", uid=NO_ID, gid=NO_ID) is None
    assert meets("-m owner --gid-owner 5 --suppl-groups", uid=NO_ID, gid=NO_ID) is False


# --- connections ----------------------------------------------------------------------------------------

CONNECTIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("-m conntrack --ctstate NEW,RELATED", {"state": "NEW"}, {"state": "ESTABLISHED"}),
    ("-m conntrack ! --ctstate INVALID", {"state": "NEW"}, {"state": "INVALID"}),
    ("-m state --state NEW,RELATED", {"state": "RELATED"}, {"state": "ESTABLISHED"}),
    ("-m state ! --state NEW", {"state": "UNTRACKED"}, {"state": "NEW"}),
    ("-m conntrack --ctstate DNAT", {"translated": True}, {"translated": False}),
    ("-m conntrack --ctstate SNAT", {"source_translated": True}, {"translated": True}),
    ("-m conntrack ! --ctstate DNAT", {"translated": False}, {"translated": True}),
    ("-m conntrack --ctstate NEW,DNAT", {"state": "ESTABLISHED", "translated": True}, {"state": "RELATED"}),
    ("-m conntrack --ctproto 6", {}, {"protocol": 17}),
    ("-m conntrack --ctdir ORIGINAL", {}, {"direction": "reply"}),
    ("-m conntrack --ctdir REPLY", {"direction": "reply"}, {}),
    (
        "-m conntrack --ctstatus SEEN_REPLY,ASSURED",
        {"status": "SEEN_REPLY CONFIRMED"},
        {"status": "CONFIRMED"},
    ),
    ("-m conntrack --ctstatus CONFIRMED", {"confirmed": True}, {}),
    ("-m conntrack ! --ctstatus CONFIRMED", {"status": ""}, {"status": "CONFIRMED"}),
    (
        "-m conntrack --ctorigdst 10.0.0.0/8",
        {"original_destination": "10.1.1.1"},
        {"original_destination": "11.0.0.0"},
    ),
    (
        "-m conntrack ! --ctorigsrc 10.0.0.0/8",
        {"original_source": "11.0.0.0"},
        {"original_source": "10.1.1.1"},
    ),
    ("-m conntrack --ctorigdstport 80:81", {"original_port": 81}, {"original_port": 82}),
    ("-m conntrack --ctorigsrcport 80", {"original_source_port": 80}, {"original_source_port": 82}),
    ("-m conntrack --ctreplsrc 10.0.0.2", {}, {"destination": "10.0.0.3"}),
    ("-m conntrack --ctreplsrcport 80", {}, {"destination_port": 81}),
    ("-m conntrack --ctrepldst 10.0.0.1", {}, {"source": "10.0.0.3"}),
    ("-m conntrack --ctrepldstport 40000", {}, {"source_port": 40001}),
    # A packet without an entry: see conntrack_mt, connmark_mt.
    ("-m conntrack --ctproto 6", {"state": "RELATED"}, {"state": "INVALID"}),
    ("-m conntrack ! --ctproto 17", {"state": "RELATED"}, {"state": "UNTRACKED"}),
    ("-m conntrack --ctstate INVALID --ctproto 17", {"state": "INVALID"}, {"state": "NEW"}),
    ("-m conntrack ! --ctstate NEW --ctdir REPLY", {"state": "UNTRACKED"}, {"state": "ESTABLISHED"}),
    ("-m connmark --mark 0x0", {}, {"state": "INVALID"}),
    ("-m connmark ! --mark 0x5", {}, {"state": "UNTRACKED"}),
]


@all_cases(("options", "accepted", "refused"), CONNECTIONS, ids=[row[0] for row in CONNECTIONS])
def test_options_on_the_connection(options: str, accepted: dict[str, Any], refused: dict[str, Any]):
    assert meets(options, **accepted) is True
    assert meets(options, **refused) is False


def test_no_status_has_no_bit():
    assert meets("-m conntrack --ctstatus NONE", status="") is False


def test_the_ends_of_replies_cannot_be_told_of_later_packets():
    for option in (
        "--ctreplsrc 10.0.0.2",
        "--ctrepldst 10.0.0.1",
        "--ctreplsrcport 80",
        "--ctrepldstport 40000",
    ):
        assert meets(f"-m conntrack {option}", first=False, state="ESTABLISHED") is None
    # Of a first packet they can: where answers go is its source, also after nat has given it another one.
    assert meets("-m conntrack --ctrepldst 10.0.0.1", source_translated=True) is True


def test_in_raw_a_packet_is_invalid_until_conntrack_has_seen_it():
    raw = Scope(Known(), "ipv4", before_conntrack=True)
    for match, seen, unseen in (
        ("--ctstate NEW", True, False),
        ("--ctstate INVALID", False, True),
        ("! --ctstate INVALID", True, False),
        ("--ctproto 6", True, False),
    ):
        assert meets(f"-m conntrack {match}", raw) is seen
        assert meets(f"-m conntrack {match}", raw, tracked=False) is unseen
    assert meets("-m state --state UNTRACKED", raw, state="UNTRACKED") is True
    assert meets("-m state --state INVALID", raw, state="UNTRACKED") is False
    assert meets("-m connmark --mark 0x0", raw, tracked=False) is False


# --- the two ways of reading --------------------------------------------------------------------------------

_PORT = st.integers(0, 65535)
_PORTS = st.tuples(_PORT, _PORT).map(lambda ends: PortRange(min(ends), max(ends)))
_MARK = st.integers(0, 0xFFFFFFFF) | st.integers(0, 3)
_CIDR = st.builds(
    lambda number, prefix: Cidr(4, number >> (32 - prefix) << (32 - prefix), prefix),
    st.integers(0, 2**32 - 1) | st.just(0x0A000002),
    st.integers(0, 32),
)
_STATES = st.frozensets(
    st.sampled_from(["INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT"]), min_size=1
)
_NAMES = st.sampled_from(["eth0", "eth1", "eth+", "lo", "+"])
_TYPED = st.one_of(
    st.builds(model.InInterface, _NAMES, st.booleans()),
    st.builds(model.OutInterface, _NAMES, st.booleans()),
    st.builds(model.Source, _CIDR, st.booleans()),
    st.builds(model.Destination, _CIDR, st.booleans()),
    st.builds(model.UidOwner, st.integers(998, 1002), st.booleans()),
    st.builds(model.GidOwner, st.integers(998, 1002), st.booleans()),
    st.builds(model.Mark, _MARK, _MARK, st.booleans()),
    st.builds(model.ConnectionMark, _MARK, _MARK, st.booleans()),
    st.builds(model.ConntrackState, _STATES, st.booleans()),
    st.builds(model.Comment, st.text("abc \"\\'-", min_size=1)),
)
_WITH_PORTS = st.tuples(
    st.builds(model.Transport, st.sampled_from(["tcp", "udp"])),
    st.one_of(
        st.builds(model.SourcePort, _PORTS, st.booleans()),
        st.builds(model.DestinationPort, _PORTS, st.booleans()),
        st.builds(model.DestinationPorts, st.lists(_PORTS, min_size=1, max_size=5).map(tuple), st.booleans()),
    ),
)
_PACKETS = st.builds(
    packet,
    protocol=st.sampled_from([6, 17]),
    source=st.sampled_from(["10.0.0.1", "9.9.9.9"]),
    destination=st.sampled_from(["10.0.0.2", "200.0.0.1"]),
    source_port=_PORT,
    destination_port=_PORT,
    uid=st.sampled_from([999, 1000, NO_ID]),
    gid=st.sampled_from([999, 1000, NO_ID]),
    mark=_MARK,
    connection_mark=_MARK,
    state=st.sampled_from(["NEW", "ESTABLISHED", "INVALID", "UNTRACKED"]),
    translated=st.booleans(),
    source_translated=st.booleans(),
    tracked=st.booleans(),
    received_on=st.sampled_from(["", "eth0", "lo"]),
    sent_to=st.sampled_from(["eth0", "lo"]),
)


@given(
    st.lists(_TYPED, max_size=4),
    st.none() | _WITH_PORTS,
    st.lists(_PACKETS, min_size=1, max_size=10),
    st.booleans(),
)
def test_options_mean_what_the_typed_match_means(
    matches: list[model.Match], ports: tuple[model.Match, ...] | None, packets: list[Packet], raw: bool
):
    """What this tool writes is read as options of iptables, and means the same."""
    rule = Rule((*(ports or ()), *matches), model.ACCEPT)
    args = rule_args(rule)[:-2]
    scope = Scope(Known(), "ipv4", before_conntrack=raw)
    typed = AllOf(tuple(iptables.condition(match, scope) for match in rule.matches))
    for each in packets:
        assert value_of(foreign_match(args, scope), each) == value_of(typed, each)

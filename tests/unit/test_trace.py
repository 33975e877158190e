"""trace: the verdict on a packet, by the rules that settings mean and those of others around them; its words.

The expected verdicts are those of the contract's rules, read by a person. What the words, the JSON and the
exit code of the command are is shown with the command itself.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from istio_iptables.trace import document, dumps, text
from istio_iptables.trace.steps import ChainStep, PassedStep, RouteStep, RuleStep
from tests.support.cases import all_cases
from tests.support.command import assert_refused, run
from tests.support.tracing import Case, verdict

OWN = "--own 10.0.0.2,fd00::2"


# --- verdicts of our rules --------------------------------------------------------------------


@all_cases("native", [False, True], ids=["iptables", "native"])
@all_cases(
    ("packet", "settings", "expected"),
    [
        # Outbound: all TCP, but for what is excluded, what stays in the pod, and what the proxy sends.
        ("out --to 10.1.2.3:80", "", "redirected 15001"),
        ("out --to 10.1.2.3:80", "-p 15101", "redirected 15101"),
        ("out --to 10.1.2.3:80 --uid 1337", "", "direct"),
        ("out --to 10.1.2.3:80 --uid 1000 --gid 1337", "", "direct"),
        ("out --to 10.1.2.3:80 --uid none", "", "redirected 15001"),
        ("out --to 10.1.2.3:80 --udp", "", "direct"),
        ("out --to 10.1.2.3:80 --ctstate ESTABLISHED", "", "direct"),
        ("out --to 10.1.2.3:80", "-x 10.1.0.0/16", "direct"),
        ("out --to 10.2.2.3:80", "-x 10.1.0.0/16", "redirected 15001"),
        ("out --to 10.1.2.3:80", "-i 10.1.0.0/16", "redirected 15001"),
        ("out --to 10.2.2.3:80", "-i 10.1.0.0/16", "direct"),
        ("out --to 10.2.2.3:80", "-i 10.1.0.0/16 -q 80", "redirected 15001"),
        ("out --to 10.1.2.3:80", "-o 80", "direct"),
        ("out --to 10.1.2.3:80", "-c eth0", "direct"),
        ("out --to 10.1.2.3:80 --iface eth1 --uid 1337", "", "direct"),
        ("out --to 127.0.0.1:80", "", "direct"),
        ("out --to 10.0.0.2:80", "", "direct"),
        ("out --to 10.0.0.2:80 --uid 1337", "", "redirected 15006"),
        ("out --to 10.0.0.2:15008 --uid 1337", "", "direct"),
        ("out --to 127.0.0.1:80 --uid 1337", "", "direct"),
        ("out --to 10.0.0.2:80 --from 127.0.0.6 --uid 1337", "", "direct"),
        # IPv6 is on with --dual-stack only, since the pod has IPv4, too.
        ("out --to [2001:db8::9]:80", "", "direct"),
        ("out --to [2001:db8::9]:80", "--dual-stack", "redirected 15001"),
        ("out --to [fd00::2]:80 --uid 1337", "--dual-stack", "redirected 15006"),
        # DNS: to the servers of resolv.conf of the family, or all of it.
        ("out --to 10.96.0.10:53 --udp", "--redirect-dns", "redirected 15053"),
        ("out --to 10.96.0.10:53", "--redirect-dns", "redirected 15053"),
        ("out --to 10.96.0.11:53 --udp", "--redirect-dns", "direct"),
        ("out --to 10.96.0.11:53", "--redirect-dns", "redirected 15001"),
        ("out --to 10.96.0.11:53 --udp", "--redirect-dns --capture-all-dns", "redirected 15053"),
        ("out --to 10.96.0.10:53 --udp --uid 1337", "--redirect-dns", "direct"),
        ("out --to [fd00::a]:53 --udp", "--redirect-dns --dual-stack", "redirected 15053"),
        # Inbound.
        ("in --to :8080", "", "redirected 15006"),
        ("in --to :8080", "-z 15106", "redirected 15106"),
        ("in --to :15008", "", "direct"),
        ("in --to :9008", "-e 9008", "direct"),
        ("in --to :15020", "-d 15020", "direct"),
        ("in --to :8080", "-b 8080", "redirected 15006"),
        ("in --to :8081", "-b 8080", "direct"),
        ("in --to :8080", "-b ''", "direct"),
        ("in --to :8080 --udp", "", "direct"),
        ("in --to :8080 --iface eth0", "-c eth0", "direct"),
        ("in --to 10.7.7.7:80 --iface net1", "-k net1", "redirected 15001"),
        ("in --to :8080", "-m TPROXY", "tproxied 15006"),
        ("in --to :15020", "-m TPROXY -d 15020", "direct"),
        ("in --to [fd00::2]:8080", "-m TPROXY --dual-stack", "tproxied 15006"),
        ("in --to :8080 --mark 1337", "-m TPROXY", "direct"),
        ("in --to :8080 --ctstate INVALID", "--drop-invalid", "dropped"),
        ("in --to :8080 --ctstate NEW", "--drop-invalid", "redirected 15006"),
    ],
)
def test_the_verdict_is_that_of_the_contract(packet: str, settings: str, expected: str, native: bool):
    assert verdict(f"{packet} {OWN}", settings, native=native) == expected


def test_owner_groups():
    found = [
        run("trace", "out", "--to", "10.1.2.3:80", "--gid", gid, ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE="33")
        for gid in ("33", "34")
    ]
    assert [done.output.split("verdict    ")[1].splitlines()[0] for done in found] == [
        "direct",
        "redirected 15001",
    ]


def test_the_proxys_own_that_comes_back_to_its_outbound_port_loops():
    # A rule of somebody else comes first, and knows no exemption.
    dump = "*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 15001\nCOMMIT\n"
    assert verdict("out --to 10.1.2.3:80 --uid 1337", dump=dump) == "loops"


def test_what_is_redirected_where_an_interface_has_no_address_is_dropped():
    dump = (
        "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 81\nCOMMIT\n"
    )
    case = Case(f"in --to 10.0.0.2:80 --iface eth7 {OWN}", dump=dump)
    addresses = tuple(each for each in case.world.network.addresses if each.interface != "eth7")
    case.world = case.world.replace(network=case.world.network.replace(addresses=addresses))
    paths = case.answer.paths
    assert {str(path.verdict) for path in paths} == {"dropped"}, paths


# --- verdicts of other rules ------------------------------------------------------------------

TRANSLATING = """\
*nat
:OUTPUT ACCEPT [0:0]
-A OUTPUT -d 10.1.2.3/32 -p tcp -j DNAT --to-destination 10.9.9.9:81
COMMIT
"""


@pytest.mark.parametrize(
    ("packet", "dump", "expected"),
    [
        (
            "out --to 10.1.2.3:80",
            "*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp --dport 15001 -j DROP\nCOMMIT\n",
            "dropped",
        ),
        (
            "out --to 10.1.2.3:80 --uid 1337",
            "*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -j REJECT\nCOMMIT\n",
            "rejected",
        ),
        ("out --to 10.1.2.3:80 --uid 1337", TRANSLATING, "translated 10.9.9.9:81"),
    ],
)
def test_rules_of_others_decide_too(packet: str, dump: str, expected: str):
    assert verdict(f"{packet} {OWN}", dump=dump) == expected


UNKNOWN = "-A OUTPUT -d 10.1.0.0/16 -m string --string x --algo bm -j DROP"


def test_what_is_not_modelled_makes_it_depend_and_both_outcomes_are_named():
    answer = Case(
        f"out --to 10.1.2.3:80 --uid 1337 {OWN}", dump=f"*filter\n:OUTPUT ACCEPT [0:0]\n{UNKNOWN}\nCOMMIT\n"
    ).answer
    assert str(answer.verdict) == "depends"
    assert sorted(str(path.verdict) for path in answer.paths) == ["direct", "dropped"]
    assert {dict(path.assumed).popitem()[1]: str(path.verdict) for path in answer.paths} == {
        "it does not match": "direct",
        "it matches": "dropped",
    }
    assert "OUTPUT" in answer.conclusion
    assert "-m string" in answer.conclusion
    assert answer.conclusion.endswith("Outcomes: direct, dropped.")
    shown = text.text(answer)
    assert "outcome 1: direct, if" in shown
    assert "outcome 2: dropped, if" in shown


def test_the_order_of_two_chains_of_one_priority_is_not_known():
    answer = Case(f"out --to 10.1.2.3:80 {OWN}", dump=TRANSLATING).answer
    assert str(answer.verdict) == "depends"
    assert {str(path.verdict) for path in answer.paths} == {"translated 10.9.9.9:81", "redirected 15001"}
    assert all("the order of" in what for path in answer.paths for what, _ in path.assumed)


def test_what_is_not_modelled_does_not_matter_where_no_packet_like_this_comes():
    dump = f"*filter\n:OUTPUT ACCEPT [0:0]\n{UNKNOWN}\nCOMMIT\n"
    assert verdict(f"out --to 10.2.2.3:80 --uid 1337 {OWN}", dump=dump) == "direct"


# --- a bound socket ---------------------------------------------------------------------------


def test_what_is_captured_of_a_bound_socket_leaves_by_its_interface():
    answer = Case(f"out --to 10.1.2.3:80 --iface eth0 {OWN}").answer
    assert str(answer.verdict) == "translated 127.0.0.1:15001"
    assert answer.conclusion.startswith(
        "The connection to 10.1.2.3:80 does not reach port 15001 of the proxy: its socket is bound to eth0"
    )


def test_a_bound_socket_leaves_by_an_interface_that_is_excluded():
    assert verdict(f"out --to 10.1.2.3:80 --iface eth1 {OWN}", "-c eth1") == "direct"
    assert verdict(f"out --to 10.1.2.3:80 {OWN}", "-c eth1") == "redirected 15001"


# --- steps ------------------------------------------------------------------------------------


def test_rules_that_do_not_match_are_one_step_with_the_nearest_miss():
    [path] = Case(f"out --to 10.1.2.3:80 --uid 1000 --gid 1000 {OWN}").answer.paths
    # ISTIO_OUTPUT: -s 127.0.0.6; three rules of the UID, three of the GID; -d 127.0.0.1; then all the rest.
    passed = [step for step in path.steps if isinstance(step, PassedStep)]
    assert [(step.chain, step.first, step.last, step.count) for step in passed] == [("ISTIO_OUTPUT", 1, 8, 8)]
    [step] = passed
    # Of those that miss by one condition: `-o lo ! --uid-owner 1337`, which the UID has, but not lo.
    assert (step.nearest, step.missed) == (3, "outgoing interface")
    assert "! --uid-owner 1337" in step.text


def test_a_near_miss_by_the_user_is_named():
    [path] = Case(f"out --to 10.0.0.2:80 --uid 1000 --gid 1000 {OWN}").answer.paths
    step = next(step for step in path.steps if isinstance(step, PassedStep))
    assert step.missed == "UID"


def test_the_way_is_told_chain_by_chain():
    [path] = Case(f"out --to 10.1.2.3:80 {OWN}").answer.paths
    assert [type(step) for step in path.steps] == [
        RouteStep,
        ChainStep,
        RuleStep,
        ChainStep,
        PassedStep,
        RuleStep,
        ChainStep,
        RuleStep,
        RouteStep,
    ]
    rules = [step for step in path.steps if isinstance(step, RuleStep)]
    assert [(step.chain, step.number) for step in rules] == [
        ("OUTPUT", 1),
        ("ISTIO_OUTPUT", 9),
        ("ISTIO_REDIRECT", 1),
    ]
    assert all(step.reason for step in rules)
    assert path.end == "delivered"


def test_a_zone_that_an_earlier_rule_has_chosen_stays():
    case = Case(f"out --to 10.96.0.10:53 --udp --uid 1337 {OWN}", "--redirect-dns --capture-all-dns")
    effects = [step.effect for step in case.answer.paths[0].steps if isinstance(step, RuleStep)]
    assert effects.count("conntrack zone 1") == 2
    assert "nothing: an earlier rule has chosen conntrack zone 1" in effects


# --- words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "settings", "conclusion"),
    [
        (
            "out --to 10.1.2.3:80",
            "",
            "The connection to 10.1.2.3:80 goes to 15001, the proxy's port for outbound connections. Reason: "
            "all other outbound traffic is captured.",
        ),
        (
            "in --to :8080",
            "",
            "The connection to 10.0.0.2:8080 goes to 15006, the proxy's port for inbound connections. "
            "Reason: all other inbound TCP is captured.",
        ),
        (
            "in --to :8080",
            "-m TPROXY",
            "The connection goes to 15006, the proxy's port for inbound connections, which sees "
            "10.0.0.2:8080 as its destination. Reason: all other inbound TCP is captured.",
        ),
        (
            "out --to 10.1.2.3:53 --udp",
            "--redirect-dns --capture-all-dns",
            "The query to 10.1.2.3:53 goes to 15053, the agent's port for DNS. Reason: all DNS over udp to "
            "the agent.",
        ),
        (
            "out --to 10.1.2.3:443 --udp",
            "",
            "The packet leaves for 10.1.2.3:443 and does not go through the proxy.",
        ),
        (
            "out --to 10.1.2.3 --protocol icmp",
            "",
            "The packet leaves for 10.1.2.3 and does not go through the proxy.",
        ),
        (
            "in --to :8080 --ctstate ESTABLISHED",
            "",
            "The connection arrives at 10.0.0.2:8080 and does not go through the proxy. nat is not asked "
            "about it, since it is not the first packet of its connection: what was decided for that one "
            "goes on (to see it, leave out --ctstate).",
        ),
        (
            "out --to [2001:db8::9]:80",
            "",
            "The connection leaves for [2001:db8::9]:80 and does not go through the proxy. There are no "
            "rules for IPv6.",
        ),
        (
            "out --to 10.1.2.3:80 --uid 1337",
            "",
            "The connection leaves for 10.1.2.3:80: it is the proxy's own, and does not come back to it. "
            "Reason: the proxy's own traffic (UID 1337): never to itself again.",
        ),
    ],
)
def test_the_conclusion_is_in_plain_words(packet: str, settings: str, conclusion: str):
    assert Case(f"{packet} {OWN}", settings).answer.conclusion == conclusion


def test_ipv6_addresses_with_a_port_stand_in_brackets():
    shown = text.text(Case(f"out --to [2001:db8::9]:80 {OWN}", "--dual-stack").answer)
    assert "TCP [fd00::2]:40000 > [2001:db8::9]:80" in shown
    assert "-> to [::1]:15001" in shown


def test_routes_are_said_as_people_say_them():
    lines = text.text(Case(f"out --to 10.1.2.3:80 {OWN}").answer).splitlines()
    assert "route      leaves by eth0 (ip rule: from all lookup main)" in lines
    again = "new route  to this machine, since a rule has changed the packet (ip rule: from all lookup local)"
    assert again in lines


def test_a_packet_without_a_socket_is_shown_as_one():
    [first, *_] = text.text(Case(f"out --to 10.1.2.3:80 --uid none {OWN}").answer).splitlines()
    assert first == "packet     TCP 10.0.0.2:40000 > 10.1.2.3:80, no socket"


def test_all_that_describes_the_packet_is_shown():
    packet = "out --to 10.1.2.3:80 --uid 5 --gid 6 --mark 7 --ctstate INVALID --zone 8 --iface eth0"
    [first, *_] = text.text(Case(f"{packet} {OWN}").answer).splitlines()
    assert first.endswith(", UID 5, GID 6, bound to eth0, mark 0x7, state INVALID, zone 8")


# --- JSON -------------------------------------------------------------------------------------

_KEYS = {
    "route": {"step", "kind", "interface", "rule", "why"},
    "chain": {"step", "table", "chain", "hook", "priority"},
    "rule": {"step", "table", "chain", "number", "text", "reason", "effect"},
    "passed": {"step", "table", "chain", "first", "last", "count", "nearest", "text", "reason", "missed"},
}


def test_the_keys_of_json_are_those_that_programs_know():
    found: dict[str, Any] = document.document(Case(f"out --to 10.1.2.3:80 {OWN}").answer)
    [hop] = found["hops"]
    assert set(hop) == {"direction", "packet", "filled", "verdict", "conclusion", "complete", "paths"}
    assert set(hop["packet"]) == {
        *("family", "protocol", "source", "source_port", "destination", "destination_port", "received_on"),
        *("sent_to", "bound_to", "uid", "gid", "mark", "connection_mark", "state", "zone"),
    }
    assert hop["verdict"] == {"code": "redirected", "to": "15001"}
    [path] = hop["paths"]
    assert set(path) == {"verdict", "assumed", "steps", "end", "packet"}
    assert {step["step"] for step in path["steps"]} == set(_KEYS)
    assert all(set(step) == _KEYS[step["step"]] for step in path["steps"])
    assert json.loads(json.dumps(found)) == found


def test_json_has_null_for_what_does_not_apply():
    sent = document.packet(Case(f"out --to 10.1.2.3:80 --uid none {OWN}").asked.packet)
    assert (sent["uid"], sent["gid"], sent["received_on"], sent["bound_to"]) == (None, None, None, None)
    assert document.packet(Case(f"in --to :80 {OWN}").asked.packet)["received_on"] == "eth0"


# --- the command ------------------------------------------------------------------------------


def test_the_command_prints_the_way_and_changes_nothing():
    done = run("trace", "out", "--to", "10.1.2.3:80", "--own", "10.0.0.2")
    assert done.status == 0
    assert done.output == text.text(Case("out --to 10.1.2.3:80 --own 10.0.0.2").answer)


@pytest.mark.parametrize(
    ("expect", "status"),
    [
        ("redirected", 0),
        ("redirected 15001", 0),
        ("redirected:15001", 0),
        ("redirected 15006", 3),
        ("direct", 3),
    ],
)
def test_another_verdict_than_is_expected_is_exit_code_3(expect: str, status: int):
    done = run("trace", "out", "--to", "10.1.2.3:80", "--own", "10.0.0.2", "--expect", expect)
    assert done.status == status
    assert "verdict    redirected 15001" in done.output


def test_json_and_native_rules_on_the_command_line():
    done = run(
        "trace", "in", "--to", ":80", "--own", "fd00::2", "--from", "fd00::9", "--json", "--native-nftables"
    )
    [hop] = json.loads(done.output)["hops"]
    assert (hop["packet"]["family"], hop["verdict"]) == ("ipv6", {"code": "redirected", "to": "15006"})
    assert "nftables" in json.dumps(hop["paths"])


def test_own_addresses_say_which_families_are_on():
    """IPv6 is on without --dual-stack if there is no IPv4 address, whatever this machine has."""
    for own, expected in (
        ("fd00::2", "redirected 15001"),
        ("fd00::2,10.0.0.2", "direct"),
        ("::1,fe80::1", "direct"),
    ):
        done = run("trace", "out", "--to", "[2001:db8::9]:80", "--own", own)
        assert f"verdict    {expected}\n" in done.output, own


def test_names_of_users_are_looked_up():
    done = run("trace", "out", "--to", "10.1.2.3:80", "--uid", "root", "--own", "10.0.0.2")
    assert "UID 0, GID 0" in done.output


def test_everything_that_is_wrong_is_said_at_once():
    done = run(
        "trace",
        "out",
        "--to",
        "x",
        "--mark",
        "y",
        "--ctstate",
        "z",
        "--expect",
        "gone",
        "--uid",
        "nobody-here",
    )
    assert_refused(
        done, "--to: 'x'", "--mark: 'y'", "--ctstate: 'z'", "--expect: 'gone'", "--uid: there is no user"
    )
    assert_refused(run("trace", "sideways", "--to", "10.0.0.1:80"), "trace: 'sideways' is not one of out, in")
    assert_refused(run("trace"), "trace: needs DIRECTION")
    assert_refused(run("trace", "out", "--to", "10.0.0.1"), "--to: needs a port")


@all_cases(
    ("expression", "conclusion"),
    [
        (
            '{"jump": {"target": "gone"}}',
            "not known: the chain gone of nftables table ip t is not in what was read",
        ),
        (
            '{"jump": {"target": "o"}}',
            "not known: the chain o of nftables table ip t calls itself, straight or through others: no "
            "kernel takes such rules, so this is not what one has in place",
        ),
    ],
)
def test_a_chain_that_cannot_be_followed_is_said(expression: str, conclusion: str):
    dump = """{"nftables": [{"table": {"family": "ip", "name": "t"}}, {"chain": {"family": "ip", "table": "t",
        "name": "o", "type": "filter", "hook": "output", "prio": 0, "policy": "drop"}},
        {"rule": {"family": "ip", "table": "t", "chain": "o", "expr": [%s]}}]}"""
    case = Case(f"out --to 10.1.2.3:80 {OWN}")
    case.world = case.world.replace(program=dumps.read([dumps.Source("x", dump % expression)]).program)
    found = case.answer
    assert (found.verdict.code, found.conclusion) == ("depends", f"Where it goes is {conclusion}.")


def test_what_goes_back_to_the_proxy_by_its_mark_is_not_said_to_pass_it_by():
    answered = ("--from", "10.0.0.2:8080", "--to", "198.51.100.1:40000", "--ctstate", "ESTABLISHED")
    done = run("-m", "TPROXY", "trace", "out", *answered, "--connmark", "1337", "--own", "10.0.0.2")
    conclusion = done.output.splitlines()[-1]
    assert conclusion.startswith("The packet to 198.51.100.1:40000 is delivered here: to the proxy, if")

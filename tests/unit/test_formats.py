"""Formats: what is written is read again as the same rules, whatever is in them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from istio_iptables.api import build, configure, render
from istio_iptables.change.actions import Live
from istio_iptables.change.plan import make_plan
from istio_iptables.formats import difference, iptables_restore, shell
from istio_iptables.formats import json as as_json
from istio_iptables.formats.iptables_args import loadable_args, matches_and_target, rule_args
from istio_iptables.rules.edit import TableEdit, apply_to, edit_between
from istio_iptables.rules.istio import TAG
from istio_iptables.rules.model import (
    ACCEPT,
    BUILTIN_CHAINS,
    DROP,
    RETURN,
    Chain,
    Cidr,
    Comment,
    ConnectionMark,
    ConntrackState,
    ConntrackZone,
    Counters,
    Destination,
    DestinationPort,
    DestinationPorts,
    ForeignMatch,
    ForeignTarget,
    GidOwner,
    InInterface,
    Jump,
    LocalAddress,
    LocalDefaultRoute,
    Mark,
    MarkLookup,
    Match,
    OutInterface,
    PortRange,
    Redirect,
    RestoreMark,
    Rule,
    Ruleset,
    SaveMark,
    SetMark,
    Source,
    SourcePort,
    Table,
    Target,
    TProxy,
    Transport,
    UidOwner,
)
from istio_iptables.rules.ownership import is_owned, is_tagged
from istio_iptables.settings.facts import Facts
from tests.support import strategies
from tests.support.restore import load

BOTH = Facts(True, True, ("10.0.0.1", "fd00::1"))
TCP = Transport("tcp")
FEWER = settings(max_examples=settings().max_examples // 2)


def ruleset_for(chosen: Mapping[str, str]) -> Ruleset:
    return build(configure(chosen, environment=BOTH))


EVERYTHING = {
    "dual-stack": "true",
    "redirect-dns": "true",
    "istio-inbound-interception-mode": "TPROXY",
    "istio-exclude-interfaces": 'eth1,a"b\\c,é',
    "kube-virt-interfaces": "net1,+",
    "istio-service-cidr": "10.0.0.0/8,fd00::/8",
    "drop-invalid": "true",
    "rule-comments": "true",
}


def read_back(script: str, family: str) -> tuple[Table, ...]:
    return iptables_restore.parse(script, "ipv4" if family == "ipv4" else "ipv6")


def flattened(table: Table) -> Table:
    """A table as it is live: head and rules are one."""
    return table.replace(chains=tuple(Chain(chain.name, chain.in_order) for chain in table.chains))


def exactly(rules: Sequence[Rule]) -> list[tuple[tuple[Match, ...], Target, Counters]]:
    """Rules with all that counts in them: the order of matches and the counters, too."""
    return [(rule.matches, rule.target, rule.counters) for rule in rules]


# --- restore: what is written is read ---------------------------------------------------------


@given(strategies.settings(), st.booleans())
@example(EVERYTHING, True)
def test_a_script_is_read_as_the_rules_that_it_was_written_from(chosen: dict[str, str], comments: bool):
    wanted = ruleset_for({**chosen, "rule-comments": str(comments).lower()})
    for family in wanted.families():
        tables = read_back(iptables_restore.script(wanted, family), family)
        expected = [flattened(table) for table in wanted.tables if table.family == family]
        assert [table.name for table in tables] == [table.name for table in expected]
        for table, goal in zip(tables, expected, strict=True):
            chains = {chain.name: exactly(chain.rules) for chain in table.chains}
            assert chains == {chain.name: exactly(chain.rules) for chain in goal.chains}


@given(strategies.settings())
@example(EVERYTHING)
def test_a_script_declares_our_chains_before_their_rules_and_no_other(chosen: dict[str, str]):
    wanted = ruleset_for(chosen)
    for family in wanted.families():
        text = iptables_restore.script(wanted, family)
        assert text.endswith("COMMIT\n")
        for part, table in zip(
            text.split("COMMIT\n")[:-1], [t for t in wanted.tables if t.family == family], strict=True
        ):
            first, *lines = part.splitlines()
            assert first == f"*{table.name}"
            declared = [line for line in lines if line.startswith(":")]
            assert declared == [f":{chain.name} - [0:0]" for chain in table.chains if is_owned(chain)]
            assert lines[: len(declared)] == declared
            assert all(line.startswith("-A ") for line in lines[len(declared) :])


def test_an_empty_ruleset_is_no_script():
    assert iptables_restore.script(Ruleset(), "ipv4") == ""
    assert render(Ruleset()) == ""


# --- restore: a script does what its edit says ------------------------------------------------

#: One rule of every kind that the policy makes, and others of their kinds.
TYPED: list[tuple[tuple[Match, ...], Target, str]] = [
    ((), RETURN, "-j RETURN"),
    ((InInterface("eth0"),), ACCEPT, "-i eth0 -j ACCEPT"),
    ((OutInterface("eth+", True),), DROP, "! -o eth+ -j DROP"),
    ((Source(Cidr(4, 0x0A000000, 8)),), RETURN, "-s 10.0.0.0/8 -j RETURN"),
    ((Destination(Cidr(4, 0x7F000001, 32), True),), RETURN, "! -d 127.0.0.1/32 -j RETURN"),
    ((Destination(Cidr(6, 1, 128)),), RETURN, "-d ::1/128 -j RETURN"),
    ((Source(Cidr(6, 0xFD << 120, 8), True),), RETURN, "! -s fd00::/8 -j RETURN"),
    ((Transport("udp", True),), RETURN, "! -p udp -j RETURN"),
    ((TCP, DestinationPort(PortRange(80, 80))), RETURN, "-p tcp -m tcp --dport 80 -j RETURN"),
    ((TCP, SourcePort(PortRange(1, 9), True)), RETURN, "-p tcp -m tcp ! --sport 1:9 -j RETURN"),
    (
        (Transport("udp"), SourcePort(PortRange(53, 53)), DestinationPort(PortRange(1024, 65535), True)),
        RETURN,
        "-p udp -m udp --sport 53 ! --dport 1024:65535 -j RETURN",
    ),
    (
        (TCP, DestinationPorts((PortRange(53, 53), PortRange(80, 90)), True)),
        RETURN,
        "-p tcp -m multiport ! --dports 53,80:90 -j RETURN",
    ),
    ((UidOwner(1337),), RETURN, "-m owner --uid-owner 1337 -j RETURN"),
    (
        (GidOwner(0, True), GidOwner(2**32 - 2, True)),
        RETURN,
        "-m owner ! --gid-owner 0 -m owner ! --gid-owner 4294967294 -j RETURN",
    ),
    ((Mark(1337),), RETURN, "-m mark --mark 0x539 -j RETURN"),
    ((Mark(1, 0xFF, True),), RETURN, "-m mark ! --mark 0x1/0xff -j RETURN"),
    ((ConnectionMark(1337),), RETURN, "-m connmark --mark 0x539 -j RETURN"),
    ((ConnectionMark(0, 1), Mark(2)), RETURN, "-m connmark --mark 0x0/0x1 -m mark --mark 0x2 -j RETURN"),
    (
        (ConntrackState(frozenset({"ESTABLISHED", "RELATED"})),),
        RETURN,
        "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
    ),
    ((ConntrackState(frozenset({"INVALID"}), True),), RETURN, "-m conntrack ! --ctstate INVALID -j RETURN"),
    ((Comment("word"),), RETURN, "-m comment --comment word -j RETURN"),
    ((Comment("two words"),), RETURN, '-m comment --comment "two words" -j RETURN'),
    ((), Jump("ISTIO_OUTPUT"), "-j ISTIO_OUTPUT"),
    ((TCP,), Jump("ISTIO_OUTPUT", goto=True), "-p tcp -g ISTIO_OUTPUT"),
    ((TCP,), Redirect(15001), "-p tcp -j REDIRECT --to-ports 15001"),
    ((), SetMark(1338), "-j MARK --set-xmark 0x53a/0xffffffff"),
    ((), SetMark(1, 0xFF), "-j MARK --set-xmark 0x1/0xff"),
    ((), SaveMark(), "-j CONNMARK --save-mark"),
    ((), RestoreMark(), "-j CONNMARK --restore-mark"),
    ((TCP,), TProxy(15006, 1337), "-p tcp -j TPROXY --on-port 15006 --tproxy-mark 0x539/0xffffffff"),
    ((), ConntrackZone(2), "-j CT --zone 2"),
]


@pytest.mark.parametrize(("matches", "target", "text"), TYPED, ids=[text for *_, text in TYPED])
def test_rules_as_arguments_and_back(matches: tuple[Match, ...], target: Target, text: str):
    rule = Rule(matches, target)
    edit = edit_between(
        Table("ipv4", "nat"), Table("ipv4", "nat", (Chain("ISTIO_OUTPUT", (rule,)), Chain("ISTIO_DROP")))
    )
    lines = iptables_restore.edit_script(edit).splitlines()
    # What is loaded has an owner as a range, which no user or group can have as a name.
    loaded = re.sub(r"(--[ug]id-owner) ([0-9]+)", r"\1 \2:\2", text)
    assert lines[-2] == f"-A ISTIO_OUTPUT {loaded}"
    assert matches_and_target(iptables_restore.split_args(loaded), {"ISTIO_OUTPUT"}) == (matches, target)
    assert matches_and_target(rule_args(rule), {"ISTIO_OUTPUT"}) == (matches, target)
    assert matches_and_target(iptables_restore.split_args(text), {"ISTIO_OUTPUT"}) == (matches, target)


def specification(rule: Rule) -> str:
    """A rule as `load` keeps it."""
    tables: dict[str, dict[str, list[str]]] = {}
    load(tables, f"*nat\n:X - [0:0]\n-A X {' '.join(map(quoted, rule_args(rule)))}\nCOMMIT\n", "ipv4")
    return tables["nat"]["X"][0]


def quoted(word: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", word) + '"'


def as_loaded(table: Table) -> dict[str, list[str]]:
    return {chain.name: [specification(rule) for rule in chain.rules] for chain in table.chains}


OWNED = [
    Rule((InInterface(name), Comment(text)), RETURN)
    for name, text in (("a", TAG), ("b", TAG), ("a", f'{TAG}: a "reason" \\ with quotes'), ('"', TAG))
]
FOREIGN_RULES = [
    Rule((InInterface("a"),), ACCEPT),
    Rule((TCP, DestinationPort(PortRange(22, 22))), ACCEPT),
    Rule((Comment('a "b" \\c'),), DROP),
]
WITHIN = [Rule((TCP,), Redirect(port)) for port in (1, 2)] + [Rule((), RETURN), Rule((), Jump("ISTIO_DROP"))]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Table, Table]:
    """A live table and a wanted one."""
    counters = st.builds(Counters, st.sampled_from([0, 5]), st.just(9))

    def chain(name: str, rules: Sequence[Rule]) -> Chain:
        chosen = draw(st.lists(st.sampled_from(rules), max_size=5))
        return Chain(name, tuple(rule.replace(counters=draw(counters)) for rule in chosen))

    own = [*OWNED, Rule((), Jump("ISTIO_OUTPUT"))]
    live = [
        chain("OUTPUT", [*own, *FOREIGN_RULES]),
        chain("ISTIO_OUTPUT", WITHIN),
        chain("ISTIO_DROP", WITHIN[:2]),
        chain("KUBE", FOREIGN_RULES),
    ]
    head = chain("OUTPUT", OWNED[:2]).rules
    wanted = [Chain("OUTPUT", chain("OUTPUT", own).rules, head), chain("ISTIO_OUTPUT", WITHIN)]
    wanted.append(chain("ISTIO_DROP", WITHIN[:2]))
    if not all(c.rules for c in wanted[1:]):  # or a jump would lead nowhere
        wanted = [Chain("OUTPUT", (), head), Chain("ISTIO_REDIRECT", (Rule((), RETURN),))]
    return Table("ipv4", "nat", tuple(live)), Table("ipv4", "nat", tuple(c for c in wanted if c.in_order))


@given(pairs())
def test_a_script_does_what_its_edit_says(pair: tuple[Table, Table]):
    live, wanted = pair
    edit = edit_between(live, wanted)
    tables = {"nat": as_loaded(live)}
    load(tables, iptables_restore.edit_script(edit), "ipv4")
    assert tables["nat"] == as_loaded(apply_to(live, edit))
    load(tables, iptables_restore.edit_script(edit.inverse()), "ipv4")
    assert tables["nat"] == as_loaded(live)


def test_the_right_one_of_two_equal_rules_is_deleted():
    rule, foreign = OWNED[0], FOREIGN_RULES[0]
    live = Table("ipv4", "nat", (Chain("OUTPUT", (rule, foreign, rule)),))
    edit = edit_between(live, Table("ipv4", "nat", (Chain("OUTPUT", (rule,)),)))
    tables = {"nat": as_loaded(live)}
    load(tables, iptables_restore.edit_script(edit), "ipv4")
    assert tables["nat"] == as_loaded(apply_to(live, edit))


def test_counters_are_written_if_a_rule_has_any():
    counted, fresh = Rule((TCP,), RETURN, counters=Counters(3, 180)), Rule((), RETURN)
    live = Table("ipv4", "nat", (Chain("OUTPUT"), Chain("ISTIO_OUTPUT", (counted,))))
    wanted = Table("ipv4", "nat", (Chain("ISTIO_OUTPUT", (counted.replace(counters=Counters()), fresh)),))
    assert iptables_restore.edit_script(edit_between(live, wanted)).splitlines() == [
        "*nat",
        "-F ISTIO_OUTPUT",
        "[3:180] -A ISTIO_OUTPUT -p tcp -j RETURN",
        "-A ISTIO_OUTPUT -j RETURN",
        "COMMIT",
    ]


def test_every_kind_of_step():
    live = Table(
        "ipv4",
        "nat",
        (
            Chain("OUTPUT", (OWNED[0], FOREIGN_RULES[0], OWNED[1], FOREIGN_RULES[1])),
            Chain("ISTIO_DROP", (WITHIN[0],)),
            Chain("ISTIO_OUTPUT", (WITHIN[0],)),
        ),
    )
    wanted = Table(
        "ipv4",
        "nat",
        (
            Chain("ISTIO_INBOUND", (WITHIN[1],)),
            Chain("OUTPUT", (OWNED[1], Rule((), Jump("ISTIO_INBOUND")))),
            Chain("PREROUTING", (OWNED[1],)),
            Chain("ISTIO_OUTPUT", (WITHIN[1],)),
        ),
    )
    assert iptables_restore.edit_script(edit_between(live, wanted)).splitlines() == [
        "*nat",
        ":ISTIO_INBOUND - [0:0]",
        "-A ISTIO_INBOUND -p tcp -j REDIRECT --to-ports 2",
        "-D OUTPUT -i a -m comment --comment istio-iptables -j RETURN",
        "-I OUTPUT 3 -j ISTIO_INBOUND",
        "-A PREROUTING -i b -m comment --comment istio-iptables -j RETURN",
        "-F ISTIO_OUTPUT",
        "-A ISTIO_OUTPUT -p tcp -j REDIRECT --to-ports 2",
        "-F ISTIO_DROP",
        "-X ISTIO_DROP",
        "COMMIT",
    ]


def test_an_edit_of_nothing():
    assert iptables_restore.edit_script(TableEdit("ipv4", "raw", ())) == "*raw\nCOMMIT\n"


# --- restore: quoting -------------------------------------------------------------------------

NASTY = [
    *(
        "",
        " ",
        '"',
        "\\",
        '\\"',
        "'",
        "a b",
        " a ",
        'say "hi" \\o/',
        "#no",
        "# no",
        "!",
        "-m",
        "$(x)",
        "`x`",
        "é",
    ),
    *("\t", "COMMIT", "%s", "-A", "[0:0]", "*nat", ":X", "-j", "-g"),
]


def one_rule(rule: Rule) -> Table:
    return Table("ipv4", "nat", (Chain("ISTIO_OUTPUT", (rule,)),))


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20))
@example("\t")
def test_comments_survive(text: str):
    wanted = one_rule(Rule((Comment(text),), RETURN))
    assert read_back(iptables_restore.edit_script(edit_between(Table("ipv4", "nat"), wanted)), "ipv4") == (
        wanted,
    )


@pytest.mark.parametrize("text", NASTY)
def test_nasty_texts_survive(text: str):
    wanted = one_rule(Rule((InInterface(text), Comment(text)), RETURN))
    script = iptables_restore.edit_script(edit_between(Table("ipv4", "nat"), wanted))
    assert read_back(script, "ipv4") == (wanted,)
    tables: dict[str, dict[str, list[str]]] = {}
    load(tables, script, "ipv4")
    assert tables["nat"]["ISTIO_OUTPUT"] == [f"-i {text} -m comment --comment {text} -j RETURN"]


@pytest.mark.parametrize(
    ("line", "args"),
    [
        ("-A X -j Y", ["-A", "X", "-j", "Y"]),
        ('a "b c" d', ["a", "b c", "d"]),
        ('a "" d', ["a", "", "d"]),
        (r'a "b \"c\" \\ \' d"', ["a", 'b "c" \\ \' d']),
        ('a  b"c "d e" ', ["a", 'b"c', "d e"]),  # iptables-save does not quote an interface's name
        ("", []),
    ],
)
def test_split_args(line: str, args: list[str]):
    assert iptables_restore.split_args(line) == args


# --- restore: reading what others wrote -------------------------------------------------------

SAVED = """\
# Generated by iptables-nft-save v1.8.9 (nf_tables) on Mon Nov 23 01:00:00 2026
*filter
:INPUT ACCEPT [10:1000]
[1:60] -A INPUT -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [5:300]
:POSTROUTING ACCEPT [5:300]
:DOCKER - [0:0]
:ISTIO_OUTPUT - [0:0]
:EMPTY - [0:0]
[7:420] -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
[0:0] -A OUTPUT ! -d 127.0.0.0/8 -p tcp -m tcp --dport :100 -g DOCKER
-A OUTPUT -j ISTIO_OUTPUT
[2:120] -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -m comment --comment "say \\"hi\\"" -j MASQUERADE
-A DOCKER -p tcp -m tcp --dport 100: -j DNAT --to-destination 172.17.0.2:80
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
COMMIT
# Completed on Mon Nov 23 01:00:00 2026
"""


def test_reading_what_iptables_save_prints():
    assert read_back(SAVED, "ipv4") == (
        Table(
            "ipv4",
            "nat",
            (
                Chain(
                    "PREROUTING",
                    (Rule((ForeignMatch(("-m", "addrtype", "--dst-type", "LOCAL")),), Jump("DOCKER")),),
                ),
                Chain("INPUT"),
                Chain(
                    "OUTPUT",
                    (
                        Rule(
                            (
                                Destination(Cidr(4, 0x7F000000, 8), True),
                                TCP,
                                DestinationPort(PortRange(0, 100)),
                            ),
                            Jump("DOCKER", goto=True),
                        ),
                        Rule((), Jump("ISTIO_OUTPUT")),
                    ),
                ),
                Chain(
                    "POSTROUTING",
                    (
                        Rule(
                            (
                                Source(Cidr(4, 0xAC110000, 16)),
                                OutInterface("docker0", True),
                                Comment('say "hi"'),
                            ),
                            ForeignTarget(("-j", "MASQUERADE")),
                        ),
                    ),
                ),
                Chain(
                    "DOCKER",
                    (
                        Rule(
                            (TCP, DestinationPort(PortRange(100, 65535))),
                            ForeignTarget(("-j", "DNAT", "--to-destination", "172.17.0.2:80")),
                        ),
                    ),
                ),
                Chain("ISTIO_OUTPUT", (Rule((UidOwner(1337),), RETURN),)),
                Chain("EMPTY"),
            ),
        ),
    )


def test_counters_are_read():
    (table,) = read_back(SAVED, "ipv4")
    assert [rule.counters for chain in table.chains for rule in chain.rules] == [
        Counters(7, 420),
        Counters(0, 0),
        Counters(),
        Counters(2, 120),
        Counters(),
        Counters(),
    ]


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "*nat\n", "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", "-A X -j Y\n"]
)
def test_reading_nothing(text: str):
    assert all(table.is_empty for table in read_back(text, "ipv4"))


FOREIGN = [
    "-m set --match-set x dst",
    "-m tcp --tcp-flags FIN,SYN SYN",
    "-p tcp -m tcp --dport 80 --tcp-flags FIN,SYN SYN",
    "-p icmp -m icmp --icmp-type 8",
    "-p sctp -m sctp --dport 80",
    "-p 47",
    "-f",
    "-m owner --uid-owner 0-99",
    "-m owner --socket-exists",
    "-m multiport --ports 80,443",
    "-m multiport --sports 80",
    "-m state --state NEW",
    "-m conntrack --ctstate NEW --ctproto 6",
    "-m conntrack --ctorigdst 10.0.0.1",
    "-m statistic --mode random --probability 0.50000000000",
    "-m recent --update --seconds 60 --name x --mask 255.255.255.255 --rsource",
    "-m limit --limit 5/min",
    '-m string --string "a b" --algo bm --to 65535',
    "-s 10.0.0.0/255.0.255.0",
    "-m connmark --mark zero",
    "! -f",
    "-m mac --mac-source 00:11:22:33:44:55 -i eth0",
]


@pytest.mark.parametrize("text", FOREIGN)
def test_foreign_matches_stay_arguments(text: str):
    args = iptables_restore.split_args(text)
    matches, target = matches_and_target([*args, "-j", "ACCEPT"], ())
    assert matches == (ForeignMatch(tuple(args)),)
    assert target == ACCEPT
    assert rule_args(Rule(matches, target)) == [*args, "-j", "ACCEPT"]
    commented = [*args, "-m", "comment", "--comment", TAG, "-j", "ISTIO_OUTPUT"]
    matches, target = matches_and_target(commented, {"ISTIO_OUTPUT"})
    assert matches == (ForeignMatch(tuple(args)), Comment(TAG))
    assert is_tagged(Rule(matches, target))
    assert target == Jump("ISTIO_OUTPUT")


FOREIGN_TARGETS = [
    "",
    "-j LOG --log-prefix x",
    "-j MASQUERADE",
    "-j DNAT --to-destination 10.0.0.1:80",
    "-j REDIRECT",
    "-j REDIRECT --to-ports 1-2",
    "-j REDIRECT --to-ports 1 --random",
    "-j MARK --or-mark 1",
    "-j CONNMARK --set-xmark 0x1/0xffffffff",
    "-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xffffffff",
    "-j CONNMARK --restore-mark --mask 0xff",
    "-j CT --notrack",
    "-j CT --zone-orig 1",
    "-j CT --zone 1 --helper ftp",
    "-j TPROXY --on-port 1 --on-ip 10.0.0.1 --tproxy-mark 0x1/0xffffffff",
    "-j TPROXY --on-port 1 --on-ip 0.0.0.0 --tproxy-mark 0x1/0xff",
    "-j TPROXY --on-port 1 --on-ip 0.0.0.0",
    "-j REJECT --reject-with icmp-port-unreachable",
    "-j UNKNOWN_CHAIN",
    "-g UNKNOWN_CHAIN",
    "-j ACCEPT --odd",
    "-j QUEUE",
]


@pytest.mark.parametrize("text", FOREIGN_TARGETS)
def test_foreign_targets_stay_arguments(text: str):
    matches, target = matches_and_target(text.split(), {"ISTIO_OUTPUT"})
    assert matches == ()
    assert target == ForeignTarget(tuple(text.split()))
    assert rule_args(Rule(matches, target)) == text.split()


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff", SaveMark()),
        ("-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff", RestoreMark()),
        ("-j TPROXY --on-port 1 --on-ip 0.0.0.0 --tproxy-mark 0x2/0xffffffff", TProxy(1, 2)),
        ("-j TPROXY --on-port 1 --on-ip :: --tproxy-mark 0x2/0xffffffff", TProxy(1, 2)),
        ("-j MARK --set-xmark 0x1/0xffffffff", SetMark(1)),
        ("-j MARK --set-xmark 0x1/0xff", SetMark(1, 0xFF)),
    ],
)
def test_targets_as_the_kernel_prints_them(text: str, target: Target):
    assert matches_and_target(text.split(), ()) == ((), target)


def test_a_chain_may_be_called_like_a_target():
    assert matches_and_target(["-j", "LOG"], {"LOG"})[1] == Jump("LOG")
    assert matches_and_target(["-j", "LOG"], {"OTHER"})[1] == ForeignTarget(("-j", "LOG"))


ARGUMENTS = [
    "!",
    "-m",
    "-j",
    "-g",
    "tcp",
    "--dport",
    "--mark",
    "connmark",
    "-s",
    "10.0.0.1",
    "::1",
    "80",
    "x",
    "-p",
]


@given(st.lists(st.sampled_from(ARGUMENTS)))
def test_any_arguments_are_read(args: list[str]):
    rule = Rule(*matches_and_target(args, {"x"}))
    assert isinstance(rule.target, Target)
    if any(isinstance(match, ForeignMatch) for match in rule.matches):
        return
    again = matches_and_target(rule_args(rule), {"x"})
    assert again == (rule.matches, rule.target)


def test_what_is_no_address_is_foreign():
    matches, _ = matches_and_target(["-s", "1::2::3", "-j", "ACCEPT"], ())
    assert matches == (ForeignMatch(("-s", "1::2::3")),)


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_a_foreign_comment_is_not_taken_apart(character: str):
    text = f"say{character}-A PREROUTING -j ISTIO_INBOUND"
    rule = f'-A PREROUTING -m comment --comment "{text}" -j DROP'
    (table,) = read_back(f"*nat\n:PREROUTING ACCEPT [0:0]\n:ISTIO_INBOUND - [0:0]\n{rule}\nCOMMIT\n", "ipv4")
    assert table.chain("PREROUTING").rules == (Rule((Comment(text),), DROP),)


# --- commands ---------------------------------------------------------------------------------


@FEWER
@given(strategies.settings(), st.booleans(), st.booleans())
@example(EVERYTHING, True, True)
def test_shell_commands_make_the_rules(chosen: dict[str, str], comments: bool, explain: bool):
    wanted = ruleset_for({**chosen, "rule-comments": str(comments).lower()})
    first, second, *lines = shell.script(wanted, explain=explain).splitlines()
    assert (first, second) == ("#!/bin/sh", "set -e")
    made: dict[tuple[str, str], dict[str, list[list[str]]]] = {}
    network = []
    for line in lines:
        args = shlex.split(line, comments=True)
        if not args:
            assert line.startswith("# ")
            continue
        if args[0] == "ip":
            network.append(line)
            continue
        family = {"iptables": "ipv4", "ip6tables": "ipv6"}[args[0]]
        assert args[1] == "-t"
        chains = made.setdefault((family, args[2]), {})
        how, chain, rest = args[3], args[4], args[5:]
        if how == "-N":
            assert chain not in chains
            assert not rest
            chains[chain] = []
            continue
        assert chain in chains or chain in BUILTIN_CHAINS, "a chain is made before its rules"
        rules = chains.setdefault(chain, [])
        rules.insert(int(rest.pop(0)) - 1 if how == "-I" else len(rules), rest)
        assert how in ("-I", "-A")
    assert network == [str(item) for item in wanted.routing]
    assert {key: chains for key, chains in made.items() if chains} == {
        (table.family, table.name): {
            chain.name: [loadable_args(rule) for rule in chain.in_order] for chain in table.chains
        }
        for table in wanted.tables
    }


def test_head_rules_are_inserted():
    script = shell.script(ruleset_for({"kube-virt-interfaces": "net1,net2"}))
    inserted = [line for line in script.splitlines() if " -I " in line]
    assert [line.split()[5] for line in inserted] == ["1", "2", "3", "4"]
    assert " -A PREROUTING -p tcp -j ISTIO_INBOUND" in script


@FEWER
@given(strategies.settings())
@example(EVERYTHING)
def test_explain_puts_the_reason_above_every_rule(chosen: dict[str, str]):
    wanted = ruleset_for(chosen)
    plain, explained = (
        shell.script(wanted).splitlines(),
        shell.script(wanted, explain=True).splitlines(),
    )
    assert [line for line in explained[1:] if not line.startswith("#")] == plain[1:]
    assert not any(line.startswith("#") for line in plain[1:])
    rules = [number for number, line in enumerate(explained) if " -A " in line or re.search(" -I ", line)]
    reasons = [
        f"# {rule.reason}"
        for family in wanted.families()
        for t, _, rule in wanted.rules()
        if t.family == family
    ]
    assert [explained[number - 1] for number in rules] == reasons


def test_one_family_only():
    wanted = ruleset_for(EVERYTHING)
    script = shell.script(wanted, ["ipv6"])
    assert all(line.startswith(("ip6tables ", "ip -6 ")) for line in script.splitlines()[2:])
    assert render(wanted, families=["ipv6"]).startswith("*raw\n")
    assert "ip -6 addr add ::6/128 dev lo nodad" in render(wanted, families=["ipv6"])
    assert "# ip rule add" not in render(wanted, families=["ipv6"])
    assert "::" not in render(wanted, families=["ipv4"])


@pytest.mark.parametrize(
    ("item", "command"),
    [
        (LocalAddress(Cidr(6, 6, 128)), "ip -6 addr add ::6/128 dev lo nodad"),
        (LocalAddress(Cidr(4, 0x7F000006, 32)), "ip addr add 127.0.0.6/32 dev lo nodad"),
        (MarkLookup("ipv4", 1337, 133), "ip rule add fwmark 1337 lookup 133"),
        (MarkLookup("ipv6", 1337, 133), "ip -6 rule add fwmark 1337 lookup 133"),
        (LocalDefaultRoute("ipv4", 133), "ip route add local default dev lo table 133"),
        (LocalDefaultRoute("ipv6", 133), "ip -6 route add local default dev lo table 133"),
    ],
    ids=str,
)
def test_ip_commands(item: MarkLookup, command: str):
    assert str(item) == command


def test_render_shows_scripts_then_ip_commands():
    wanted = ruleset_for(EVERYTHING)
    text = render(wanted)
    assert text.index("# ipv4: for iptables-restore") < text.index("# ipv6: for ip6tables-restore")
    tail = text.rpartition("COMMIT\n")[2].splitlines()
    assert tail == [f"# {item!s}" for item in wanted.routing]
    one = render(ruleset_for({}))
    assert one.startswith("*nat\n")
    assert one.endswith("COMMIT\n")


# --- json -------------------------------------------------------------------------------------


@FEWER
@given(strategies.settings())
@example(EVERYTHING)
def test_json_has_every_rule(chosen: dict[str, str]):
    wanted = ruleset_for(chosen)
    document = json.loads(render(wanted, "json"))
    assert document == as_json.document(wanted)
    found = [
        (table["family"], table["name"], chain["name"], rule["rule"], rule["reason"], rule["at_head"])
        for table in document["tables"]
        for chain in table["chains"]
        for rule in chain["rules"]
    ]
    assert found == [
        (table.family, table.name, chain.name, rule_args(rule), rule.reason, number < len(chain.head))
        for table in wanted.tables
        for chain in table.chains
        for number, rule in enumerate(chain.in_order)
    ]
    assert [item["command"] for item in document["routing"]] == [str(i) for i in wanted.routing]
    assert {item["kind"] for item in document["routing"]} <= {
        "LocalAddress",
        "MarkLookup",
        "LocalDefaultRoute",
    }


def test_json_of_one_rule():
    rule = Rule(
        (
            Destination(Cidr(4, 0x7F000001, 32), True),
            DestinationPorts((PortRange(53, 53), PortRange(80, 90))),
        ),
        TProxy(15006, 1337),
        "why",
    )
    assert as_json.rule_values(rule) == {
        "rule": rule_args(rule),
        "matches": [
            {"type": "Destination", "cidr": "127.0.0.1/32", "negated": True},
            {"type": "DestinationPorts", "ports": ["53", "80:90"], "negated": False},
        ],
        "target": {"type": "TProxy", "port": 15006, "mark": 1337},
        "reason": "why",
    }
    states = ConntrackState(frozenset({"RELATED", "ESTABLISHED"}))
    assert as_json.rule_values(Rule((states,), RETURN))["matches"] == [
        {"type": "ConntrackState", "states": ["ESTABLISHED", "RELATED"], "negated": False}
    ]


def test_json_of_one_family():
    document = as_json.document(ruleset_for(EVERYTHING), ["ipv6"])
    assert {table["family"] for table in document["tables"]} == {"ipv6"}
    assert {item["family"] for item in document["routing"]} == {"ipv6"}


# --- difference -------------------------------------------------------------------------------


def live_after(chosen: Mapping[str, str]) -> Live:
    wanted = ruleset_for(chosen)
    return Live({"iptables-legacy": tuple(map(flattened, wanted.tables)), "iptables-nft": ()}, wanted.routing)


PORT = {"envoy-port": "15002"}


def test_difference_in_text():
    plan = make_plan(live_after(PORT), ruleset_for({"drop-invalid": "true"}), "iptables-legacy")
    assert difference.text(plan).splitlines() == [
        "@ ipv4 mangle (iptables-legacy)",
        "+-A ISTIO_DROP -j DROP",
        "+-A PREROUTING -m conntrack --ctstate INVALID -j ISTIO_DROP",
        "@ ipv4 nat (iptables-legacy)",
        "  ...",
        " -A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN",
        " -A ISTIO_OUTPUT -j ISTIO_REDIRECT",
        "--A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15002",
        "+-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
        " -A OUTPUT -j ISTIO_OUTPUT",
        " -A PREROUTING -p tcp -j ISTIO_INBOUND",
    ]


def test_difference_in_colour():
    plan = make_plan(live_after(PORT), ruleset_for({}), "iptables-legacy")
    plain, coloured = difference.text(plan), difference.text(plan, colour=True)
    assert re.sub("\x1b\\[[0-9]*m", "", coloured) == plain
    colours = {"@": "\x1b[36m", "-": "\x1b[31m", "+": "\x1b[32m"}
    for line, shown in zip(plain.splitlines(), coloured.splitlines(), strict=True):
        assert shown == (f"{colours[line[0]]}{line}\x1b[0m" if line[0] in colours else line)
    assert "\x1b" not in plain


def test_difference_in_json():
    plan = make_plan(live_after(PORT), ruleset_for({}), "iptables-legacy")
    document = json.loads(difference.json_text(plan))
    assert document["differs"] is True
    (part,) = document["parts"]
    assert part["part"] == "ipv4 nat (iptables-legacy)"
    assert part["removed"] == ["-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15002"]
    assert part["added"] == ["-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001"]
    assert set(part["in_place"]) ^ set(part["wanted"]) == {*part["removed"], *part["added"]}


def test_no_difference():
    plan = make_plan(live_after(PORT), ruleset_for(PORT), "iptables-legacy")
    assert difference.text(plan) == difference.text(plan, colour=True) == ""
    assert json.loads(difference.json_text(plan)) == {"differs": False, "parts": []}


def test_the_state_in_lines():
    live = live_after({"istio-inbound-interception-mode": "TPROXY"})
    lines = list(difference.state_lines(live))
    assert len(lines) == sum(len(c.rules) for t in live.tables["iptables-legacy"] for c in t.chains) + len(
        live.routing
    )
    assert "iptables-legacy ipv4 nat: -A OUTPUT -j ISTIO_OUTPUT" in lines
    assert lines[-1] == "ip route add local default dev lo table 133"

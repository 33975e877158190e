"""Scripts for iptables-restore: what is written is read again as the same rules, whatever is in them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from istio_iptables.api import render
from istio_iptables.formats import iptables_restore
from istio_iptables.formats.iptables_args import matches_and_target, rule_args
from istio_iptables.rules.edit import TableEdit, apply_to, edit_between
from istio_iptables.rules.istio import TAG
from istio_iptables.rules.model import (
    ACCEPT,
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
    GidOwner,
    InInterface,
    Jump,
    Mark,
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
from istio_iptables.rules.ownership import is_owned
from tests.support import strategies
from tests.support.cases import all_cases
from tests.support.restore import load, read_back
from tests.support.rulesets import EVERYTHING, ruleset_for
from tests.support.tables import flattened

TCP = Transport("tcp")


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


@all_cases(("matches", "target", "text"), TYPED, ids=[text for *_, text in TYPED])
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


@all_cases("text", NASTY)
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

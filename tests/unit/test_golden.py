"""The golden files: readable scripts that the product, the oracle and a reader agree about."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.support.cases import all_cases
from tests.support.golden import check, main, text_of
from tests.support.golden_cases import DIRECTORY, GOLDEN, Golden
from tests.support.restore import after_loading, by_family

#: Every numbered step of SPEC section 3, and what a golden file that shows it has in it:
#: (table, pattern of a line as iptables-save prints it).
STEPS: dict[str, tuple[str, str]] = {
    "nat 1": ("nat", r"-A PREROUTING (-i (?!k6t|net)\S+ )?-m comment --comment istio-iptables -j RETURN"),
    "nat 2": ("nat", r"-A PREROUTING -i (k6t|net)\S* -m comment --comment istio-iptables -j RETURN"),
    "nat 3": ("nat", r"-A ISTIO_INBOUND -p tcp -m tcp --dport \d+ -j RETURN"),
    "nat 4": ("nat", r"-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports \d+"),
    "nat 5": ("nat", r"-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports \d+"),
    "nat 6, all": ("nat", r"-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT"),
    "nat 6, excluded": ("nat", r"-A ISTIO_INBOUND -p tcp -m tcp --dport 22 -j RETURN"),
    "nat 6, list": ("nat", r"-A ISTIO_INBOUND -p tcp -m tcp --dport \S+ -j ISTIO_IN_REDIRECT"),
    "nat 7": ("nat", r"-A OUTPUT -j ISTIO_OUTPUT"),
    "nat 8": ("nat", r"-A ISTIO_OUTPUT -p udp -m udp --dport \S+ -j RETURN"),
    "nat 9": ("nat", r"-A ISTIO_OUTPUT -s (127.0.0.6/32|::6/128) -o lo -j RETURN"),
    "nat 10a": ("nat", r"-A ISTIO_OUTPUT ! -d \S+ -o lo -p tcp -m tcp ! --dport \d+ .* -j ISTIO_IN_REDIRECT"),
    "nat 10a, DNS": ("nat", r"-A ISTIO_OUTPUT .* -m multiport ! --dports 53,\d+ .* -j ISTIO_IN_REDIRECT"),
    "nat 10b": ("nat", r"-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner \d+ -j RETURN"),
    "nat 10b, DNS": ("nat", r"-A ISTIO_OUTPUT -o lo -p tcp -m tcp ! --dport 53 -m owner ! --gid-owner .*"),
    "nat 10c": ("nat", r"-A ISTIO_OUTPUT -m owner --gid-owner \d+ -j RETURN"),
    "nat 11, list": ("nat", r"-A ISTIO_OUTPUT (-m owner ! --gid-owner \d+ )+-j RETURN"),
    "nat 11, excluded": ("nat", r"-A ISTIO_OUTPUT -m owner --gid-owner (3000|[56]) -j RETURN"),
    "nat 12": ("nat", r"-A ISTIO_OUTPUT -j ISTIO_OUTPUT_DNS"),
    "nat 12, all": ("nat", r"-A ISTIO_OUTPUT_DNS -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053"),
    "nat 12, servers": ("nat", r"-A ISTIO_OUTPUT_DNS -d \S+ -p tcp .* -j REDIRECT --to-ports 15053"),
    "nat 13": ("nat", r"-A ISTIO_OUTPUT -d (127\S+|::1/128) -j RETURN"),
    "nat 13, excluded": ("nat", r"-A ISTIO_OUTPUT -d (?!127|::1/)\S+ -j RETURN"),
    "nat 13, ports": ("nat", r"-A ISTIO_OUTPUT -p tcp -m tcp --dport \S+ -j ISTIO_REDIRECT"),
    "nat 14, all": ("nat", r"-A ISTIO_OUTPUT -j ISTIO_REDIRECT"),
    "nat 14, list": ("nat", r"-A ISTIO_OUTPUT -d \S+ -j ISTIO_REDIRECT"),
    "nat 14, -k": ("nat", r"-A PREROUTING -i \S+ -j ISTIO_REDIRECT"),
    "nat 14, list, -k": ("nat", r"-A PREROUTING -d \S+ -i \S+ -j ISTIO_REDIRECT"),
    "mangle 1": ("mangle", r"-A OUTPUT -o \S+ -m comment --comment istio-iptables -j RETURN"),
    "mangle 2": ("mangle", r"-A ISTIO_DROP -j DROP"),
    "mangle 3": ("mangle", r"-A ISTIO_DIVERT -j MARK --set-xmark \S+/0xffffffff"),
    "mangle 4": ("mangle", r"-A ISTIO_TPROXY ! -d \S+ -p tcp -j TPROXY .*"),
    "mangle 5": ("mangle", r"-A PREROUTING -p tcp -j ISTIO_INBOUND"),
    "mangle 6": ("mangle", r"-A ISTIO_INBOUND -i lo -p tcp -m mark ! --mark 0x53a -j RETURN"),
    "mangle 7": ("mangle", r"-A ISTIO_INBOUND -p tcp -j ISTIO_TPROXY"),
    "mangle 7, excluded": ("mangle", r"-A ISTIO_INBOUND -p tcp -m tcp --dport \d+ -j RETURN"),
    "mangle 8": ("mangle", r"-A ISTIO_INBOUND -p tcp -m tcp --dport \S+ -j ISTIO_TPROXY"),
    "mangle 9, save": ("mangle", r"-A PREROUTING -p tcp -m mark .* -j CONNMARK --save-mark .*"),
    "mangle 9, mark": ("mangle", r"-A OUTPUT ! -d .* -m owner --gid-owner .* -j MARK --set-xmark 0x53a/.*"),
    "mangle 9, restore": ("mangle", r"-A OUTPUT -p tcp -m connmark .* -j CONNMARK --restore-mark .*"),
    "raw 1": ("raw", r"-A OUTPUT -j ISTIO_OUTPUT_DNS"),
    "raw 2": ("raw", r"-A ISTIO_OUTPUT_DNS -p udp -m udp --sport 15053 -m owner .* -j CT --zone 2"),
    "raw 3, all": ("raw", r"-A ISTIO_INBOUND -p udp -m udp --sport 53 -j CT --zone 1"),
    "raw 3, servers": ("raw", r"-A ISTIO_INBOUND -s \S+ -p udp -m udp --sport 53 -j CT --zone 1"),
}


#: What docs/native-nftables.md tells about native rules, and a golden file that shows it has in it.
NATIVE: dict[str, str] = {
    "IPv4 alone": r"\t\tmeta nfproto ipv4 counter jump istio-output",
    "both families": r"\t\tcounter jump istio-output",
    "one family of two": r"\t\tip6 saddr ::6 counter return|\t\toifname \"lo\" ip6 saddr ::6 counter return",
    "a set of ports": r"\t\ttcp dport { \d+, .* } counter .*",
    "a named set of ports": r"\t\ttcp dport @ports-\S+ counter .*",
    "a named set of networks": r"\t\tip daddr @addresses-\S+ counter return",
    "networks merged": r"\t\telements = { 10\.0\.0\.0/8, .* }",
    "a long set": r"\t\t\t1001, 1003, 1005, 1007, 1009, 1011, 1013, 1015,",
    "no owner negated": r"\t\toifname \"lo\" counter return",
    "owners": r"\t\tmeta sk[ug]id 1337 counter return",
    "a set of groups": r"\t\tmeta skgid (@groups-\S+|{ .* }) counter return",
    "captured groups": r"\t\tmeta skgid @groups-\S+ counter goto istio-output-of-groups",
    "the chain of the rest": r"\tchain istio-output-of-groups {",
    "TPROXY": r"\t\tmeta l4proto tcp ip daddr != \S+ counter tproxy ip to :\d+ meta mark set \S+ accept",
    "TPROXY drops": r"\t\tmeta l4proto tcp ip daddr != \S+ counter drop",
    "TPROXY, IPv6": r"\t\tmeta l4proto tcp ip6 daddr != ::1 counter tproxy ip6 to :\d+ .*",
    "zones": r"\t\tudp [sd]port 53 .*counter ct zone set [12]",
    "DNS servers": r"\t\tudp dport 53 ip daddr { .* } counter redirect to :15053",
    "states": r"\t\tct state invalid counter jump istio-drop",
    "marks": r"\t\tmeta l4proto tcp meta mark \S+ counter ct mark set meta mark",
    "a wildcard": r"\t\t.*iifname \"(net|eth)\*\" counter return",
    "comments": r'\t\t.* comment "\S.*"',
    "nat": r"\t\ttype nat hook output priority -100; policy accept;",
    "mangle": r"\t\ttype route hook output priority -150; policy accept;",
    "raw": r"\t\ttype filter hook prerouting priority -300; policy accept;",
}


def _named(golden: Golden) -> str:
    return golden.name


@all_cases("golden", GOLDEN, ids=_named)
def test_file_is_what_is_rendered_and_what_the_oracle_says(golden: Golden):
    assert golden.path.read_text(encoding="utf-8") == text_of(golden)


def test_every_file_has_its_configuration_and_there_are_enough():
    assert {path.name for path in DIRECTORY.iterdir()} == {golden.path.name for golden in GOLDEN}
    assert len({golden.name for golden in GOLDEN}) == len(GOLDEN) >= 45


@pytest.fixture(scope="module")
def lines_by_file() -> list[dict[str, list[str]]]:
    """Of every file, all lines of a table, both families."""
    found = []
    for golden in GOLDEN:
        if golden.style != "restore":
            continue
        tables: dict[str, list[str]] = {}
        body = golden.path.read_text(encoding="utf-8").partition("\n\n")[2]
        for family, script in by_family(body).items():
            for table, lines in after_loading(script, family).items():
                tables.setdefault(table, []).extend(lines)
        found.append(tables)
    return found


@all_cases("step", STEPS)
def test_every_step_of_the_specification_is_shown_several_times(
    step: str, lines_by_file: list[dict[str, list[str]]]
):
    table, pattern = STEPS[step]
    showing = [
        tables
        for tables in lines_by_file
        if any(re.fullmatch(pattern, line) for line in tables.get(table, []))
    ]
    assert len(showing) >= 3


@all_cases("fact", NATIVE)
def test_every_fact_about_native_rules_is_shown(fact: str):
    files = [golden.path.read_text(encoding="utf-8") for golden in GOLDEN if golden.style == "nft"]
    assert len(files) >= 12
    assert any(re.fullmatch(NATIVE[fact], line) for text in files for line in text.splitlines())


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            lambda text: text.replace("--dport 15008 -j RETURN", "--dport 15009 -j RETURN"), id="port"
        ),
        pytest.param(lambda text: text.replace("-A OUTPUT -j ISTIO_OUTPUT\n", ""), id="missing rule"),
        pytest.param(lambda text: text.replace("! -d 127.0.0.1/32", "-d 127.0.0.1/32"), id="negation"),
        pytest.param(lambda text: text.replace("*nat", "*mangle"), id="table"),
        pytest.param(lambda text: text + "# ip rule add fwmark 1337 lookup 133\n", id="ip command"),
    ],
)
def test_the_oracle_catches_a_wrong_script(change: Callable[[str], str]):
    golden = GOLDEN[0]
    right = golden.path.read_text(encoding="utf-8").partition("\n\n")[2]
    check(golden, right)
    with pytest.raises(AssertionError, match="by the oracle it should be"):
        check(golden, change(right))


def test_the_checker_says_which_file_is_wrong(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 0
    assert main(["--wrong"]) == 2
    assert capsys.readouterr().err == "usage: python -m tests.support.golden [--write]\n"

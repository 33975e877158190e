"""Parsers of lists: what a text means, and that nothing in a text becomes more than a value."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from istio_iptables.api import build, configure, render
from istio_iptables.errors import SettingsError
from istio_iptables.rules.model import Cidr, PortRange
from istio_iptables.settings import parsers
from istio_iptables.settings.config import ALL, Config
from istio_iptables.settings.declared import BY_NAME, SETTINGS, Setting
from istio_iptables.settings.facts import Facts
from istio_iptables.settings.parsers import BadValue
from tests.support.cases import all_cases
from tests.support.configuring import mistakes_of
from tests.support.restore import after_loading, by_family
from tests.support.texts import FACTS, problems

# --- ports ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("65535", 65535), ("080", 80), ("0000443", 443)])
def test_port(text: str, number: int):
    assert parsers.port(text, FACTS) == number


@all_cases(
    "text",
    [
        *("", "0", "65536", "-1", "+1", "1.0", "1e3", "0x50", "1_000", " 1", "1 ", "1\n", "80,443", "80-90"),
        *("http", "*", "²", "٣", "\uff11", "99999999999999999999", "1;reboot", "80 -j ACCEPT", "\0", "1\0"),
    ],
)
def test_no_port(text: str):
    assert len(problems(parsers.port, text)) == 1
    assert repr(text) in problems(parsers.port, text)[0]


@all_cases(
    ("text", "ranges"),
    [
        ("", []),
        (",,", []),
        ("80", [(80, 80)]),
        ("80,443", [(80, 80), (443, 443)]),
        ("8000-8100", [(8000, 8100)]),
        ("8000:8100", [(8000, 8100)]),
        ("80-80", [(80, 80)]),
        ("1-65535", [(1, 65535)]),
        (" 80 ,, 8000-8100 ,", [(80, 80), (8000, 8100)]),
        ("80,80", [(80, 80), (80, 80)]),
        ("443,80", [(443, 443), (80, 80)]),
    ],
)
def test_ports(text: str, ranges: list[tuple[int, int]]):
    expected = tuple(PortRange(*pair) for pair in ranges)
    assert parsers.ports(text, FACTS) == expected
    assert parsers.ports_or_all(text, FACTS) == expected


@all_cases(
    "text",
    [
        *("0", "65536", "0-1", "1-65536", "90-80", "80-", "-80", ":80", "80:", "1-2-3", "1:2:3", "1-2:3"),
        *("80 - 90", "80 443", "80;443", "http", "80\n443", "*,80", "80-*", "!80", "8080/tcp"),
    ],
)
def test_no_ports(text: str):
    assert len(problems(parsers.ports_or_all, text)) == 1
    assert len(problems(parsers.ports, text)) == 1


def test_the_wildcard_of_ports():
    assert parsers.ports_or_all("*", FACTS) is ALL
    assert parsers.ports_or_all(" *,", FACTS) is ALL
    assert "'*'" in problems(parsers.ports, "*")[0]
    assert "mixed" in problems(parsers.ports_or_all, "*,80")[0]
    assert len(problems(parsers.ports_or_all, "*,*")) == 2


def test_every_bad_member_is_named():
    found = problems(parsers.ports, "80,a,90-80,443,0")
    assert [problem.partition(" is ")[0] for problem in found] == ["'a'", "'90-80'", "'0'"]


# --- networks ---------------------------------------------------------------------------------


@all_cases(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("10.1.2.3/32", "10.1.2.3/32"),
        ("10.1.2.3/31", "10.1.2.2/31"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("10.1.2.3/0", "0.0.0.0/0"),
        ("255.255.255.255", "255.255.255.255/32"),
        ("fd00::/8", "fd00::/8"),
        ("FD12:3456::1/8", "fd00::/8"),
        ("fd00:0:0:0:0:0:0:1", "fd00::1/128"),
        ("::/0", "::/0"),
        ("::1", "::1/128"),
        ("fd00::1/64", "fd00::/64"),
        ("::ffff:10.1.2.3", "::ffff:10.1.2.3/128"),
        ("64:ff9b::10.0.0.0/96", "64:ff9b::/96"),
        ("2001:db8::ff00:42:8329/127", "2001:db8::ff00:42:8328/127"),
    ],
)
def test_network(text: str, network: str):
    assert [str(found) for found in parsers.cidrs(text, FACTS)] == [network]
    found = parsers.cidrs_or_all(text, FACTS)
    assert isinstance(found, tuple)
    assert [str(member) for member in found] == [network]
    assert type(parsers.cidrs(text, FACTS)[0]) is Cidr


@all_cases(
    "text",
    [
        *("10", "10.0", "10.0.0", "10.0.0.0.0", "256.0.0.1", "010.0.0.1", "0x0a.0.0.1", "10.0.0.0/33"),
        *("10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/ 8", "10.0.0.0/8/8", "10.0.0.0/255.0.0.0"),
        *("fd00::/129", "fd00:::1", "fd00::1::2", "fe80::1%eth0", "[::1]", "1::2::3/64", "::/x", ":"),
        *("localhost", "any", "!10.0.0.0/8", "10.0.0.0/8 -j ACCEPT", "10.0.0.1\n/8", "2130706433", "/8"),
        *("10.0.0.0/²", "\uff110.0.0.1", "10.0.0.1\0", "10.0.0.1/\0"),
    ],
)
def test_no_network(text: str):
    assert len(problems(parsers.cidrs, text)) == 1
    assert problems(parsers.cidrs, f"10.0.0.0/8,{text},fd00::") == problems(parsers.cidrs_or_all, text)


def test_the_wildcard_of_networks():
    assert parsers.cidrs_or_all("*", FACTS) is ALL
    assert "mixed" in problems(parsers.cidrs_or_all, "*,10.0.0.0/8")[0]
    assert "'*'" in problems(parsers.cidrs, "*")[0]
    assert parsers.cidrs("", FACTS) == parsers.cidrs_or_all("", FACTS) == ()


@all_cases(
    ("text", "named"),
    [
        ("127.0.0.1", True),
        ("127.255.0.1/8", True),
        ("127.0.0.1/0", True),
        ("::1", True),
        ("::1/0", True),
        ("10.0.0.0/8", False),
        ("126.0.0.0/7", False),
        ("0.0.0.0/0", False),
        ("::/0", False),
        ("::2", False),
        ("10.0.0.0/8,::1", True),
    ],
)
def test_whether_a_list_names_a_loopback_address(text: str, named: bool):
    assert configure({"istio-service-cidr": text}, environment=FACTS).outbound_cidrs_name_loopback is named


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("127.0.0.1/32", "127.0.0.1/32"),
        ("127.0.0.1", "127.0.0.1/32"),
        ("127.1.2.3/8", "127.0.0.0/8"),
        ("127.255.255.255/9", "127.128.0.0/9"),
    ],
)
def test_ipv4_loopback(text: str, network: str):
    assert str(parsers.ipv4_loopback(text, FACTS)) == network


@all_cases("text", ["", "127.0.0.0/7", "10.0.0.0/8", "::1", "127.0.0.1,127.0.0.2", "*", "lo", "128.0.0.1"])
def test_no_ipv4_loopback(text: str):
    assert len(problems(parsers.ipv4_loopback, text)) == 1


@given(st.ip_addresses(), st.integers(0, 128))
def test_networks_agree_with_the_standard_library(address: object, prefix: int):
    import ipaddress

    text = f"{address}/{prefix}"
    try:
        expected = ipaddress.ip_interface(text).network
    except ValueError:
        assert problems(parsers.cidrs, text)
        return
    (found,) = parsers.cidrs(text, FACTS)
    assert (found.version, found.address, found.prefix) == (
        expected.version,
        int(expected.network_address),
        expected.prefixlen,
    )
    assert found.packed_mask == expected.netmask.packed
    assert ipaddress.ip_network(str(found)) == expected


# --- interfaces -------------------------------------------------------------------------------


@all_cases(
    "text",
    [
        "eth0",
        "lo",
        "eth+",
        "+",
        "a",
        "fifteen-letters",
        "fourteen-lette+",
        "bond0.100",
        "veth@if4",
        "é",
        "日本",
        "a-b",
        "a!",
    ],
)
def test_interface(text: str):
    assert parsers.interfaces(text, FACTS) == (text,)


@all_cases(
    "text",
    [
        *(
            "sixteen-letters-",
            "fifteen-letters+",
            "éééééééé",
            "a/b",
            "/",
            ".",
            "..",
            "a:1",
            "-i",
            "--help",
            "!eth0",
        ),
        *("!", "-", "eth 0", "eth\t0", "eth\n0", "eth\r0", "eth\x0b0", "eth\x1f0", "eth\x850", "eth\u20280"),
        *(
            "eth\xa00",
            "eth\0",
            "eth\x7f",
            "\u200b",
            "*",
            "lo -j ACCEPT",
            "lo\n-A OUTPUT -j ACCEPT",
            "lo\nCOMMIT",
        ),
    ],
)
def test_no_interface(text: str):
    found = problems(parsers.interfaces, text)
    assert len(found) == 1
    assert found[0].isprintable()


def test_interfaces():
    assert parsers.interfaces(" eth0 ,,net+ ,eth0", FACTS) == ("eth0", "net+", "eth0")
    assert parsers.interfaces("", FACTS) == ()
    assert len(problems(parsers.interfaces, "eth0,a/b,c d")) == 2


def test_no_interface_of_undecodable_bytes():
    assert problems(parsers.interfaces, "eth\udcff")


# --- users and groups -------------------------------------------------------------------------


def test_users_and_groups():
    assert parsers.users("0, 1337 ,envoy,4294967294,007", FACTS) == (0, 1337, 101, 4294967294, 7)
    assert parsers.groups("payments,5", FACTS) == (2000, 5)
    assert parsers.users("", FACTS) == ()


@all_cases(
    "text",
    ["4294967295", "99999999999999999999", "-1", "+1", "1.5", "root!", "payments", "*", "1-2", "²", "0x1"],
)
def test_no_users(text: str):
    assert repr(text) in problems(parsers.users, text)[0]


def test_no_group():
    assert "no group 'envoy'" in problems(parsers.groups, "envoy")[0]
    assert "no user 'payments'" in problems(parsers.users, "payments")[0]


def test_the_wildcard_of_groups():
    assert parsers.captured_groups("*", FACTS) is ALL
    assert "mixed" in problems(parsers.captured_groups, "*,1")[0]
    assert "'*'" in problems(parsers.excluded_groups, "*")[0]


# --- any text ---------------------------------------------------------------------------------


PIECES = [
    *(
        "80",
        "8000-8100",
        "65536",
        "10.0.0.0/8",
        "fd00::/8",
        "127.0.0.1",
        "eth0",
        "net+",
        "1337",
        "envoy",
        "*",
    ),
    *(
        ",",
        " ",
        "\n",
        "\r",
        "\t",
        "\0",
        '"',
        "'",
        "\\",
        "#",
        "-",
        "!",
        "+",
        "/",
        ":",
        "=",
        "$(reboot)",
        "`reboot`",
    ),
    *(
        ";reboot",
        " -j ACCEPT",
        "\nCOMMIT",
        "\n-A OUTPUT -j ACCEPT",
        "\u2028",
        "\x85",
        "\x0b",
        "é",
        "٣",
        "²",
        "5s",
    ),
    *("true", "TPROXY", "info", "0x539", "%s", "{0}", "\x1b[31m"),
]


def texts() -> st.SearchStrategy[str]:
    """Any text, and texts that are nearly right."""
    pieces = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)
    one_off = st.tuples(st.sampled_from(PIECES), st.characters(), st.sampled_from(PIECES)).map("".join)
    return st.text() | pieces | one_off


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
@settings(max_examples=settings().max_examples // 2)
@given(text=texts())
def test_any_text_is_a_value_or_a_bad_value(setting: Setting, text: str):
    type_of_default = type(setting.parse(setting.default, FACTS))
    allowed = {type_of_default, tuple} if type_of_default is type(ALL) else {type_of_default}
    value = attempted(lambda: setting.parse(text, FACTS))
    if isinstance(value, BadValue):
        assert value.problems
        assert all(problem and problem.isprintable() for problem in value.problems)
    else:
        assert type(value) in allowed
        hash(value)


def attempted(make: Callable[[], object]) -> object:
    """What is made, or the mistake on the way."""
    try:
        return make()
    except (BadValue, SettingsError) as error:
        return error


#: One line of a script. An option has one value, a value is one word.
WORD = r'(?:[^\s"\\]+|"(?:[^"\\]|\\["\\])*")'
SCRIPT_LINE = re.compile(
    r"\*(?:nat|mangle|raw)|:ISTIO_[A-Z_]+ - \[0:0\]|COMMIT|# ipv[46]: for .*|"
    r"# ip (?:-6 )?(?:addr|rule|route) .*|"
    rf"-A (?:PREROUTING|OUTPUT|ISTIO_[A-Z_]+)(?: -m [a-z]+| (?:! )?(?:-[sdiop]|--[a-z-]+) {WORD})*"
    r" -j [A-Z_]+(?: --[a-z-]+(?: [0-9a-fx/]+)?)*"
)

BOOLEANS = ("true", "false")
MODES = ("REDIRECT", "TPROXY")
INTERFACES = ("istio-exclude-interfaces", "kube-virt-interfaces")
IN_RULES = [setting for setting in SETTINGS if setting.field in Config._fields]


@pytest.mark.parametrize("setting", IN_RULES, ids=lambda setting: setting.name)
@settings(max_examples=settings().max_examples // 2)
@given(
    text=texts(), mode=st.sampled_from(["REDIRECT", "TPROXY"]), comments=st.sampled_from(["true", "false"])
)
def test_nothing_in_a_value_becomes_another_argument_or_line(
    setting: Setting, text: str, mode: str, comments: str
):
    check_script(setting, text, mode, comments)


@all_cases("name", INTERFACES)
@all_cases("text", ['"', '\\"', "a\\", "'", "$(x)", "#", 'a"b\\c', "é", "`x`;&|<>", "ISTIO_OUTPUT", "a#"])
@all_cases("comments", BOOLEANS)
def test_interface_names_of_odd_characters(name: str, text: str, comments: str):
    check_script(BY_NAME[name], text, "TPROXY", comments)


def check_script(setting: Setting, text: str, mode: str, comments: str) -> None:
    """Render with that value: every line must be what it should be, and a rule have only known options."""
    chosen = {"istio-inbound-interception-mode": mode, "rule-comments": comments, "redirect-dns": "true"}
    facts = Facts(ipv4=False, ipv6=True, servers=("10.0.0.1", "fd00::1"), groups={"payments": 2000})
    config = attempted(lambda: configure({**chosen, setting.name: text}, environment=facts))
    if isinstance(config, SettingsError):
        assert all(mistake.isprintable() for mistake in config.mistakes)
        return
    assert isinstance(config, Config)
    ruleset = build(config)
    script = render(ruleset)
    for line in script.split("\n")[:-1]:
        assert SCRIPT_LINE.fullmatch(line), line
    tables = [after_loading(one, family) for family, one in by_family(script).items()]
    loaded = [rule for table in tables for rules in table.values() for rule in rules]
    assert len(loaded) == sum(1 for _ in ruleset.rules())
    if setting.name in INTERFACES:
        names = {member.strip() for member in text.split(",") if member.strip()} | {"lo"}
        matched = {rule.partition(" -i ")[2].partition(" -")[0] for rule in loaded if " -i " in rule}
        assert matched <= names
    for line in render(ruleset, "commands", explain=True).split("\n")[2:-1]:
        if not line.startswith("# "):
            words = shlex.split(line)
            assert words[0] in ("ip", "iptables", "ip6tables")
            if words[0] != "ip":
                assert words[1:3] in (["-t", "nat"], ["-t", "mangle"], ["-t", "raw"])
                assert words[3] in ("-N", "-A", "-I")


@given(texts())
@example("fe80::1%eth0")
@example("10.0.0.1/24")
def test_a_dns_server_is_a_host_or_nothing(text: str):
    found = parsers.host_cidr(text)
    assert found is None or found.prefix == found.bits


def test_what_is_no_port_is_told_what_one_is():
    """The whole line: users read it, and nothing else says it."""
    assert mistakes_of("-b", "80,http") == [
        "--istio-inbound-ports (-b): 'http' is not a port: "
        "use a number from 1 to 65535 or a range such as 8000-8100"
    ]

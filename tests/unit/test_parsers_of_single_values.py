"""Parsers of single values: marks, tables, times, levels, words."""

from __future__ import annotations

from contextlib import suppress

import pytest

from istio_iptables.settings import parsers
from istio_iptables.settings.declared import BY_NAME
from istio_iptables.settings.parsers import BadValue
from tests.support.cases import all_cases
from tests.support.texts import FACTS, problems


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("1337", 1337),
        ("0x539", 1337),
        ("0XFFFFFFFF", 2**32 - 1),
        ("4294967295", 2**32 - 1),
        ("0x01", 1),
    ],
)
def test_mark(text: str, number: int):
    assert parsers.mark(text, FACTS) == number


@all_cases(
    "text",
    [
        "",
        "0",
        "0x0",
        "0x",
        "-1",
        "4294967296",
        "0x100000000",
        "1/0xff",
        "0b1",
        "0o17",
        "0x_1",
        "1 ",
        f"0x{'f' * 99}",
    ],
)
def test_no_mark(text: str):
    assert len(problems(parsers.mark, text)) == 1


@pytest.mark.parametrize("text", ["0x0", "0x100000000"])
def test_a_bad_mark_is_named_as_it_was_written(text: str):
    assert repr(text) in problems(parsers.mark, text)[0]


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1), ("252", 252), ("256", 256), ("4294967295", 2**32 - 1)]
)
def test_route_table(text: str, number: int):
    assert parsers.route_table(text, FACTS) == number


@all_cases("text", ["0", "253", "254", "255", "main", "local", "", "4294967296", "0x10"])
def test_no_route_table(text: str):
    assert len(problems(parsers.route_table, text)) == 1


@all_cases(
    ("text", "seconds"),
    [
        # the examples of time.ParseDuration, and of its tests
        ("5s", 5),
        ("500ms", 0.5),
        ("1m30s", 90),
        ("30s", 30),
        ("1478s", 1478),
        ("+5s", 5),
        ("5.0s", 5),
        ("5.6s", 5.6),
        ("5.s", 5),
        (".5s", 0.5),
        ("1.0s", 1),
        ("1.004s", 1.004),
        ("100.00100s", 100.001),
        ("10ns", 1e-8),
        ("11us", 11e-6),
        ("12µs", 12e-6),
        ("12μs", 12e-6),
        ("13ms", 0.013),
        ("15m", 900),
        ("16h", 57600),
        ("3h30m", 12600),
        ("10.5s4m", 250.5),
        ("1h15m30.918273645s", 4530.918273645),
        ("1h2m3s4ms5us6ns", 3723.004005006),
        ("39h9m14.425s", 140954.425),
        ("2562047h", 2562047 * 3600),
    ],
)
def test_duration(text: str, seconds: float):
    assert parsers.duration(text, FACTS) == pytest.approx(seconds, rel=1e-12)


@all_cases(
    "text",
    [
        *(
            "",
            "0",
            "0s",
            "0.0ms",
            "5",
            "s",
            ".",
            ".s",
            "-.s",
            "+.s",
            "-5s",
            "--5s",
            "5S",
            "5 s",
            " 5s",
            "5s ",
            "5s\n",
        ),
        *(
            "1.5",
            "1.5.5s",
            "1e3s",
            "1d",
            "3000000h",
            "9223372036854775808ns",
            "infs",
            "nans",
            "1_0s",
            "\u0665s",
            "1s,2s",
        ),
        f"{'9' * 400}h",
    ],
)
def test_no_duration(text: str):
    assert len(problems(parsers.duration, text)) == 1


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("default:info", [("default", "info")]),
        ("debug", [("default", "debug")]),
        ("ads:debug,all:none", [("ads", "debug"), ("all", "none")]),
        ("warn, error ,fatal", [("default", "warn"), ("default", "error"), ("default", "fatal")]),
        ("a:b:info", [("a:b", "info")]),
        ("", []),
    ],
)
def test_log_levels(text: str, levels: list[tuple[str, str]]):
    assert parsers.log_levels(text, FACTS) == tuple(levels)


@pytest.mark.parametrize(
    "text", ["INFO", "default", "default:", "info:default", "verbose", "default:warning", "a b"]
)
def test_no_log_levels(text: str):
    assert len(problems(parsers.log_levels, text)) == 1


def test_interception_mode_and_variant():
    mode, variant = BY_NAME["istio-inbound-interception-mode"], BY_NAME["force-iptables-binary"]
    assert [mode.parse(text, FACTS) for text in ("REDIRECT", "TPROXY", "")] == [
        "REDIRECT",
        "TPROXY",
        "REDIRECT",
    ]
    assert [variant.parse(text, FACTS) for text in ("legacy", "nft", "")] == ["legacy", "nft", ""]
    for text in ("redirect", "tproxy", "NONE", "TPROXY ", "REDIRECT,TPROXY"):
        assert "REDIRECT, TPROXY" in problems(mode.parse, text)[0]
    assert "legacy, nft" in problems(variant.parse, "iptables-legacy")[0]


LONG_NUMBERS = {
    "port": (parsers.port, f"{'0' * 5000}80"),
    "ports": (parsers.ports, f"80-{'0' * 5000}90"),
    "users": (parsers.users, f"{'0' * 5000}1337"),
    "networks": (parsers.cidrs, f"10.0.0.0/{'0' * 5000}8"),
    "route table": (parsers.route_table, f"{'0' * 5000}133"),
}


@pytest.mark.parametrize("name", LONG_NUMBERS)
def test_thousands_of_leading_zeros(name: str):
    parse, text = LONG_NUMBERS[name]
    with suppress(BadValue):
        parse(text, FACTS)

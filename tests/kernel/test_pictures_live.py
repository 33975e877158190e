"""Pictures, and the page, of the rules in the kernel: their counters, reasons, and the settings they mean."""

from __future__ import annotations

import re
from html import unescape
from xml.etree import ElementTree

import pytest

from tests.support.seeing import CAPTURED, COMMAND, EXCLUDED, FORMS, dial, every_form, pod

from ..support.failing import failed, hidden
from ..support.scratch import KERNEL, Scratch

pytestmark = KERNEL

_ENDPOINT = "out --uid 1000 --to 10.96.7.7:80 --follow --endpoint 10.0.0.2:8080"


def shown(scratch: Scratch, *arguments: str) -> str:
    done = scratch.run(*COMMAND, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def words(svg: str) -> str:
    """The text of a picture."""
    return " ".join(" ".join(each.itertext()) for each in ElementTree.fromstring(svg).iter())


@every_form
def test_a_picture_of_live_rules_has_their_reasons_and_counters(form: str) -> None:
    with pod() as scratch:
        scratch.apply(*FORMS[form], "-p", "15101", "-x", "10.9.0.0/16")
        dial(scratch, CAPTURED, 3)
        dial(scratch, EXCLUDED, 2)
        before = scratch.state()
        found = words(shown(scratch, "render", "--format", "svg", "--live"))
        assert scratch.state() == before
    assert "settings istio-iptables " in found
    assert "--envoy-port=15101" in found
    assert re.search(r"destination 10\.9\.0\.0/16 is excluded.*?2 packets, 120 bytes", found)
    assert re.search(r"all other outbound traffic is captured.*?3 packets, 180 bytes", found)
    assert "15101 outbound" in found
    assert "counter," not in found  # of nftables: what a rule does, not that it counts


def test_the_way_of_a_packet_through_live_rules_goes_on_to_an_endpoint() -> None:
    with pod() as scratch:
        scratch.apply("-p", "15101")
        found = words(shown(scratch, "render", "--format", "svg", "--live", "--trace", _ENDPOINT))
    assert (
        "It arrives at 10.0.0.2:8080 in this pod, from 127.0.0.6, after it went through port 15101 and"
        in found
    )


@pytest.mark.parametrize("style", ["mermaid", "dot"])
def test_other_formats_have_live_rules_too(style: str) -> None:
    with pod() as scratch:
        scratch.apply("-p", "15101")
        assert "15101" in shown(scratch, "render", "--format", style, "--live")


@every_form
def test_the_page_of_live_rules_says_where_its_settings_are_from(form: str) -> None:
    with pod() as scratch:
        scratch.apply(*FORMS[form], "-p", "15101", "-x", "10.9.0.0/16")
        scratch.check("iptables-legacy", "-t", "nat", "-I", "OUTPUT", "-p", "udp", "-j", "ACCEPT")
        page = shown(scratch, "report", "--html", "-", "--live")
        assert "read back from the rules" in page
        assert "<code>--envoy-port</code>" in page
        commands = [unescape(each) for each in re.findall(r'<code class="command">(.*?)</code>', page)]
        assert len(commands) > 5
        verdicts = re.findall(r'<h3 id="title-e\d+">.*? <span class="verdict">(.*?)</span>', page)
        for command, verdict in list(zip(commands, verdicts, strict=True))[:2]:
            name, *arguments = command.split()
            assert (name, arguments[-1]) == ("istio-iptables", "--live")
            shown(scratch, *arguments, "--expect", verdict)


def test_settings_that_are_given_are_those_of_the_page() -> None:
    with pod() as scratch:
        scratch.apply("-p", "15101")
        page = shown(scratch, "-p", "15101", "report", "--html", "-", "--live")
    assert "read back" not in page
    assert "--envoy-port (-p)" in page


def test_without_rules_of_istio_iptables_the_page_says_so() -> None:
    with pod() as scratch:
        done = scratch.run(*COMMAND, "report", "--html", "-", "--live")
    assert done.returncode == 0
    assert "no rule is known as one of istio-iptables" in done.stdout
    assert "settings not known: no rule is one of istio-iptables" in done.stderr


@pytest.mark.parametrize("command", [["render", "--format", "svg"], ["report", "--html", "-"]])
def test_no_picture_is_drawn_of_a_part_of_the_rules(command: list[str]) -> None:
    with pod() as scratch:
        scratch.apply("--force-iptables-binary", "legacy")
        hide = hidden("/usr/sbin/xtables-legacy-multi")
        done = scratch.run(*hide, *COMMAND, *command, "--live")
        failed(done, "the rules in place cannot all be read, and an answer from the rest could be wrong")

"""trace of the rules in the kernel and of dumps, in every backend, with settings and reasons."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.seeing import CAPTURED, COMMAND, EXCLUDED, FORMS, SETTINGS, every_form, pod

from ..support.applying import NOBODY
from ..support.failing import failed, hidden
from ..support.scratch import KERNEL, Scratch

pytestmark = KERNEL

_LEGACY, _NFT, _NFT_COMMAND = "/usr/sbin/xtables-legacy-multi", "/usr/sbin/xtables-nft-multi", "/usr/sbin/nft"


def answer(scratch: Scratch, *arguments: str, stdin: str = "") -> dict[str, Any]:
    found = scratch.run(*COMMAND, "trace", "out", "--uid", "1000", "--json", *arguments, stdin=stdin)
    assert found.returncode == 0, found.stderr
    document: dict[str, Any] = json.loads(found.stdout)
    assert isinstance(document["read"], list)
    return document


def verdict(scratch: Scratch, *arguments: str, stdin: str = "") -> dict[str, str]:
    code: dict[str, str] = answer(scratch, *arguments, stdin=stdin)["hops"][0]["verdict"]
    return code


def reasons(document: dict[str, Any]) -> list[str]:
    """The reasons of the rules that decided or changed something."""
    steps = document["hops"][0]["paths"][0]["steps"]
    return [step["reason"] for step in steps if step["step"] == "rule"]


# --- the rules in the kernel ------------------------------------------------------------------


@every_form
def test_the_rules_in_the_kernel_are_followed(form: str) -> None:
    with pod() as scratch:
        scratch.apply(*FORMS[form], *SETTINGS)
        before = scratch.state()
        assert verdict(scratch, "--live", "--to", EXCLUDED) == {"code": "direct", "to": ""}
        assert verdict(scratch, "--live", "--to", CAPTURED) == {"code": "redirected", "to": "15001"}
        assert scratch.state() == before


@every_form
def test_live_rules_have_their_reasons_without_any_setting(form: str) -> None:
    """The settings are read back: also the ports and users of the proxy, which the verdict depends on."""
    with pod() as scratch:
        scratch.apply(*FORMS[form], "-p", "15101", "-u", "4242", "-x", "10.9.0.0/16")
        found = answer(scratch, "--live", "--to", CAPTURED)
        assert "" not in reasons(found)
        assert "all other outbound traffic is captured" in reasons(found)
        assert "15101, the proxy's port for outbound connections" in found["hops"][0]["conclusion"]
        [line] = found["settings"]
        assert line.startswith("read back from the rules: istio-iptables --envoy-port=15101 ")
        assert "--proxy-uid=4242" in line
        own = answer(scratch, "--live", "--to", CAPTURED, "--uid", "4242")
        assert "it is the proxy's own" in own["hops"][0]["conclusion"]


def test_settings_that_are_given_count_before_those_in_place() -> None:
    with pod() as scratch:
        scratch.apply("-p", "15101")
        found = answer(scratch, "-p", "15101", "--live", "--to", CAPTURED)
        assert found["settings"] == []
        assert "" not in reasons(found)
        other = answer(scratch, "-p", "15001", "--live", "--to", CAPTURED)
        assert "" in reasons(other)  # the rule to 15101 is none of these settings'


def test_tproxy_is_told_without_its_routes() -> None:
    with pod() as scratch:
        scratch.apply("-m", "TPROXY", "--dual-stack")
        found = answer(scratch, "--live", "--to", CAPTURED)
        assert found["settings"][0].startswith("read back from the rules: ")


def test_rules_that_no_settings_mean_have_the_reasons_of_the_nearest() -> None:
    with pod() as scratch:
        scratch.apply("--force-iptables-binary", "legacy", *SETTINGS)
        scratch.check("iptables-legacy", "-t", "nat", "-D", "ISTIO_OUTPUT", "1")
        found = answer(scratch, "--live", "--to", CAPTURED)
        [line] = found["settings"]
        assert line.startswith("none mean exactly these rules: reasons")
        assert "--istio-service-exclude-cidr=10.9.0.0/16" in line
        assert "all other outbound traffic is captured" in reasons(found)


def test_without_rules_of_istio_iptables_that_is_said() -> None:
    with pod() as scratch:
        scratch.check("iptables-legacy", "-t", "nat", "-A", "OUTPUT", "-p", "udp", "-j", "ACCEPT")
        found = answer(scratch, "--live", "--to", CAPTURED)
        [line] = found["settings"]
        assert line.startswith("not known: no rule is one of istio-iptables, so the proxy is taken to have")


# --- what cannot be read ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hide", "what"),
    [
        (_LEGACY, "the tables of iptables-legacy (ipv4)"),
        (_NFT_COMMAND, "the tables of nftables (inet own)"),
    ],
)
def test_a_part_of_the_rules_is_no_answer(hide: str, what: str) -> None:
    """What is missing could decide: `legacy` has the rules, `inet own` a rule of another program."""
    with pod() as scratch:
        scratch.apply("--force-iptables-binary", "legacy", *SETTINGS)
        scratch.nft(script="table inet own { chain c { type filter hook output priority 0; }; }")
        command = [*hidden(hide), *COMMAND, "trace", "out", "--live", "--to", CAPTURED]
        failed(
            scratch.run(*command),
            "the rules in place cannot all be read, and an answer from the rest could be wrong: ",
            what,
            "is not installed",
            "install the package",
        )


def test_who_may_read_nothing_is_told_what_and_why() -> None:
    with pod() as scratch:
        scratch.apply("--force-iptables-binary", "legacy", *SETTINGS)
        failed(scratch.run(*NOBODY, *COMMAND, "trace", "out", "--live", "--to", CAPTURED), "root")


def test_tables_of_iptables_nft_are_enough_without_nft_and_the_other_way_round() -> None:
    with pod() as scratch:
        scratch.apply("--force-iptables-binary", "nft", *SETTINGS)
        command = [*COMMAND, "trace", "out", "--uid", "1000", "--json", "--live", "--to", CAPTURED]
        for hide in (_NFT, _NFT_COMMAND):
            done = scratch.run(*hidden(hide), *command)
            assert done.returncode == 0, done.stderr
            found = json.loads(done.stdout)
            told = [line for line in found["unread"] if "read with nft, which tells less" in line]
            assert bool(told) == (hide == _NFT)
            # `-m owner` is not in what nft prints of a table of iptables.
            wanted = "depends" if hide == _NFT else "redirected"
            assert found["hops"][0]["verdict"]["code"] == wanted


#: Tables of nft with names that iptables uses, of which iptables-nft-save shows a part, or nothing.
IN_PART = "table ip filter { chain c { type filter hook output priority 5; tcp dport 80 drop; }; }"
NOTHING = (
    "table ip filter { chain OUTPUT { type filter hook output priority 0; tcp dport { 80, 81 } drop; "
    "ct state vmap { new : drop }; }; }"
)


@pytest.mark.parametrize("script", [IN_PART, NOTHING])
def test_a_table_that_has_a_name_of_iptables_and_is_not_its_own(script: str) -> None:
    """nft prints all of it. Without nft it is not read, and that is no answer."""
    with pod() as scratch:
        scratch.nft(script=script)
        found = answer(scratch, "--live", "--to", CAPTURED)
        assert found["hops"][0]["verdict"] == {"code": "dropped", "to": ""}
        assert found["unread"] == []
        saved = scratch.check("iptables-nft-save")
        assert "incompatible" in saved
        dump = answer(scratch, "--file", "-", "--to", CAPTURED, stdin=f"{saved}*raw\nCOMMIT\n")
        assert "read it with `nft -j list ruleset`" in dump["unread"][0]
        command = [*hidden(_NFT_COMMAND), *COMMAND, "trace", "out", "--live", "--to", CAPTURED]
        failed(scratch.run(*command), "the tables of nftables (ip filter)", "is not installed")


def test_a_dormant_table_of_iptables_nft_captures_nothing() -> None:
    """iptables-nft-save shows it as any other; nft 1.0.6 prints flags that nobody can read."""
    with pod() as scratch:
        scratch.apply("--force-iptables-binary", "nft", *SETTINGS)
        assert verdict(scratch, "--live", "--to", CAPTURED)["code"] == "redirected"
        scratch.nft(script="add table ip nat { flags dormant; }")
        assert verdict(scratch, "--live", "--to", CAPTURED)["code"] in ("depends", "direct")


# --- dumps ------------------------------------------------------------------------------------


def test_a_dump_is_followed_wherever_it_was_made() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply("--force-iptables-binary", "legacy", *SETTINGS, "-p", "15101")
        dump = scratch.save("legacy", "ipv4")
    with Scratch() as elsewhere:
        own = ["--own", "10.0.0.2", "--file", "-"]
        assert verdict(elsewhere, *own, "--to", EXCLUDED, stdin=dump)["code"] == "direct"
        found = answer(elsewhere, *own, "--to", CAPTURED, stdin=dump)
        assert found["hops"][0]["verdict"]["to"] == "15101"
        assert "" not in reasons(found)
        half = dump.partition("COMMIT")[0]
        cut = elsewhere.run(*COMMAND, "trace", "out", "--to", CAPTURED, *own, stdin=half)
        assert (cut.returncode, cut.stdout) == (2, "")
        assert "COMMIT" in cut.stderr


@every_form
def test_everything_that_programs_print_in_one_text(form: str, tmp_path: Path) -> None:
    """What the page for a pod far away says to do, with all commands one after the other."""
    with pod() as scratch:
        scratch.apply(*FORMS[form], *SETTINGS)
        commands = (
            "iptables-legacy-save; ip6tables-legacy-save; iptables-nft-save; ip6tables-nft-save; "
            "nft -j list ruleset; ip rule; ip -6 rule; ip route show table all; ip -j addr"
        )
        text = scratch.check("sh", "-c", commands)
        live = [answer(scratch, "--live", "--to", to) for to in (CAPTURED, EXCLUDED)]
    (tmp_path / "dump").write_text(text)
    for to, wanted in zip((CAPTURED, EXCLUDED), live, strict=True):
        packet = ["trace", "out", "--uid", "1000", "--to", to, "--json", "--file", str(tmp_path / "dump")]
        done = subprocess.run([*COMMAND, *packet], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        assert found["unread"] == []
        assert found["hops"][0]["verdict"] == wanted["hops"][0]["verdict"]
        assert reasons(found) == reasons(wanted)

"""Cleanup finds what is owned from the live state alone, and leaves the rest as it was: SPEC section 5."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.support.applying import ALL_SORTS, BACKENDS, every_backend, families_of, ip_commands, rules_of
from tests.support.saved import normalise_save

from ..support.scratch import FAMILIES, KERNEL, VARIANTS, Scratch, owned

pytestmark = KERNEL


@every_backend
@pytest.mark.parametrize(
    "how",
    [
        ["cleanup"],
        ["--cleanup-only"],
        ["--cleanup-only", "-t", "7", "-r", "8", "-b", "9"],
        ["cleanup", "-m", "REDIRECT"],
    ],
    ids=" ".join,
)
def test_cleanup_needs_no_flags(backend: str, how: list[str]) -> None:
    """From the live state alone: TPROXY mark and table, -c, -k, DNS, both families, routes and ::6."""
    options, _ = BACKENDS[backend]
    with Scratch(addresses=True) as scratch:
        before = {**scratch.network(), "nft": scratch.nft("list", "ruleset")}
        scratch.apply(*options, *ALL_SORTS)
        assert "fwmark 0x578 lookup 140" in scratch.ip("rule", "show")
        assert "::6/128" in scratch.ip("-6", "address", "show", "dev", "lo")
        scratch.apply(*how)
        assert rules_of(scratch) == {}
        assert {**scratch.network(), "nft": scratch.nft("list", "ruleset")} == before
        assert not re.search("ISTIO|istio", "".join(scratch.state().values()))
        generation, state = scratch.generation(), scratch.state(counters=True)
        assert "nothing to do" in scratch.apply("cleanup").stderr
        assert (scratch.generation(), scratch.state(counters=True)) == (generation, state)


def test_cleanup_takes_everything_in_every_backend_at_once() -> None:
    """legacy, nft and native, with foreign rules in all of them."""
    with Scratch(addresses=True) as scratch:
        script = scratch.apply(*ALL_SORTS, "--dry-run").stdout
        foreign = "*nat\n-A OUTPUT -p udp -j RETURN\nCOMMIT\n"
        scratch.nft(script="table inet mine { chain istio-output { counter; }; }")
        for variant in VARIANTS:
            for family in FAMILIES:
                scratch.restore(variant, family, foreign)
        before = scratch.state(counters=True)
        native = scratch.apply(*ALL_SORTS, "render", "--format", "nft").stdout
        for variant in VARIANTS:
            for family, part in families_of(script).items():
                scratch.restore(variant, family, part)
        scratch.nft(script=native)
        for command in ip_commands(script):
            scratch.ip(*command.split()[1:])
        assert "istio-proxy-nat" in scratch.nft("list", "tables")
        done = scratch.apply("cleanup")
        assert "istio-proxy-nat" in done.stderr
        after = scratch.state(counters=True)
        assert "table inet mine" in after["nft"]
        assert not re.search("ISTIO|istio-proxy", after["nft"])
        assert after["nft"] == before["nft"]
        # Tables that legacy rules were put into cannot be taken away again; they are empty.
        assert rules_in(after) == rules_in(before)
        assert scratch.network() == {key: before[key] for key in scratch.network()}


def rules_in(state: dict[str, str]) -> dict[str, dict[str, list[str]]]:
    return {key: normalise_save(text) for key, text in state.items() if key.startswith("ipv")}


def test_apply_takes_native_tables_away_and_says_so() -> None:
    """Owned rules in another location are a difference; --reconcile moves them in one go."""
    with Scratch() as scratch:
        rule = "meta l4proto tcp counter redirect to :15001"
        scratch.nft(script=f"table inet istio-proxy-nat {{ chain istio-redirect {{ {rule}; }}; }}")
        shown = scratch.tool()
        assert shown.returncode == 3
        assert "-table inet istio-proxy-nat" in shown.stdout
        assert not owned(scratch.save("legacy", "ipv4"))
        scratch.apply("--reconcile")
        assert scratch.nft("list", "ruleset") == ""
        assert "nothing to do" in scratch.apply().stderr


def test_cleanup_of_a_fresh_namespace_makes_no_table() -> None:
    with Scratch() as scratch:
        generation = scratch.generation()
        assert "nothing to do" in scratch.apply("cleanup").stderr
        assert scratch.legacy_tables() == set()
        assert scratch.generation() == generation


@pytest.mark.parametrize("options", [*(o for o, _ in BACKENDS.values()), ["--native-nftables"]], ids=str)
def test_cleanup_dry_run_changes_nothing_and_shows_what_would_do_it(options: list[str]) -> None:
    """Each part of what it prints is for one tool: done by these tools, it cleans up."""
    with Scratch(addresses=True) as scratch:
        network = scratch.network()
        scratch.apply(*options, *ALL_SORTS)
        before = scratch.state(counters=True)
        shown = scratch.apply("cleanup", "--dry-run").stdout
        assert scratch.state(counters=True) == before
        for part in re.split(r"(?m)^(?=# )", shown)[1:]:
            heading, _, script = part.partition("\n")
            command = heading.removeprefix("# ").rpartition(": for ")[2]
            scratch.check(*shlex.split(command), stdin=script)
        assert rules_of(scratch) == {}
        assert scratch.network() == network
        assert scratch.apply("cleanup", "--dry-run").stdout == ""


def test_istio_clean_iptables() -> None:
    """The name that Istio shipped for years, with flags that it ignores."""
    code = "import sys; from istio_iptables.__main__ import clean; sys.exit(clean())"
    with Scratch(addresses=True) as scratch:
        before = scratch.network()
        scratch.apply(*ALL_SORTS)
        done = scratch.python(code, "-p", "15001", "-u", "1337", "-i", "*", "-b", "*")
        assert done.returncode == 0, done.stderr
        assert rules_of(scratch) == {}
        assert scratch.network() == before
        assert scratch.python(code, "-n").returncode == 0
        assert scratch.python(code, "--no-such-flag").returncode == 2

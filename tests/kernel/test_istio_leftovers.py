"""What Istio's own tools of 1.4 to today left (tests/fixtures/istio): SPEC section 3, "Whose is it"."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from ..support.istio_fixtures import ANYONES, NAMES, IstioRules, read
from ..support.scratch import FAMILIES, KERNEL, VARIANTS, Result, Scratch, Variant
from ..support.snapshots import LOCATIONS, everything, routing, rules, with_files, without_anyones

pytestmark = KERNEL

every_variant = pytest.mark.parametrize("variant", VARIANTS)


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    """A namespace with a usable address of either family."""
    with Scratch(addresses=True) as made:
        yield made


# --- what Istio's own tools left ------------------------------------------------------------

every_rule_set = pytest.mark.parametrize("name", NAMES)


def load(scratch: Scratch, left: IstioRules, *variants: Variant) -> None:
    """Do what Istio's tool did."""
    for variant in variants:
        for family, script in left.scripts.items():
            scratch.restore(variant, "ipv6" if family == "ipv6" else "ipv4", script)
    for command in left.ip:
        scratch.ip(*command)


def with_nameservers(scratch: Scratch, left: IstioRules) -> list[str]:
    """Return the prefix of a command that is to find these servers, and no others, in /etc/resolv.conf."""
    return with_files(scratch, {"/etc/resolv.conf": "".join(f"nameserver {s}\n" for s in left.nameservers)})


def run(scratch: Scratch, left: IstioRules, *more: str) -> Result:
    """Run the tool with the settings of the rule set."""
    prefix = with_nameservers(scratch, left)
    return scratch.tool(*left.settings, *more, env=left.environment, prefix=prefix)


def removals(done: Result) -> list[list[str]]:
    """Return the commands of iptables that the log offers to remove a rule with."""
    found = re.findall(r"ip6?tables\S* [^'`\"\n]*-D [^'`\"\n]*? -j RETURN", done.stderr)
    return [shlex.split(command) for command in dict.fromkeys(found)]


@every_rule_set
def test_cleanup_removes_what_istios_tools_left(scratch: Scratch, name: str) -> None:
    """In both variants at once; all but the rules that any program could have written, which it names."""
    left = read(name)
    network = routing(scratch)
    load(scratch, left, *VARIANTS)
    done = scratch.apply("cleanup")
    after = rules(scratch)
    assert without_anyones(after) == {}
    assert routing(scratch) == network
    expected = {
        (variant, family, table)
        for variant in VARIANTS
        for family in FAMILIES
        for table, _ in left.of_anyone(family)
    }
    assert set(after) == expected
    commands = removals(done)
    assert len(commands) == sum(len(left.of_anyone(f)) for f in FAMILIES) * 2, done.stderr
    for command in commands:
        scratch.check(*command)
    assert rules(scratch) == {}
    # Each removal that is not of a chain of Istio's, or a jump to it, is logged.
    again = scratch.apply("cleanup")
    assert not removals(again)
    assert rules(scratch) == {}


@every_rule_set
@every_variant
def test_reconcile_takes_over_what_istios_tools_left(scratch: Scratch, name: str, variant: Variant) -> None:
    """A plain run shows the difference; --reconcile ends as a first run in a clean namespace does."""
    left, options = read(name), LOCATIONS[variant]
    load(scratch, left, variant)
    before = everything(scratch)
    plain = run(scratch, left, *options)
    assert plain.returncode == (0 if left.same else 3), plain.stdout + plain.stderr
    assert everything(scratch) == before
    done = run(scratch, left, *options, "--reconcile")
    assert done.returncode == 0, done.stderr
    with Scratch(addresses=True) as clean:
        first = run(clean, left, *options)
        assert first.returncode == 0, first.stderr
        assert without_anyones(rules(scratch)) == rules(clean)
        assert routing(scratch) == routing(clean)
    mine = everything(scratch)
    again = run(scratch, left, *options)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "nothing to do" in again.stderr
    assert everything(scratch) == mine
    kept = [line for lines in rules(scratch).values() for line in lines if ANYONES.match(line)]
    assert len(kept) == sum(len(left.of_anyone(family)) for family in FAMILIES)
    assert scratch.apply("cleanup")
    assert without_anyones(rules(scratch)) == {}


#: Rules outside of Istio's chains that Istio's tools left, and a part of the log line for each.
TAKEN = {
    ("1.8-dns-servers", "-d 10.96.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.1:15053"),
    ("1.8-dns-servers", "-p udp -m udp --dport 53 -m owner --gid-owner 1337 -j RETURN"),
    ("1.9-dns-all", "-p udp -m udp --sport 15053 -m owner --uid-owner 1337 -j CT --zone 2"),
    ("1.20-dns-servers-dual", "-s fd00:10:96::a/128 -p udp -m udp --sport 53 -j CT --zone 1"),
    ("1.20-tproxy-interfaces", "-o lo -p tcp -m mark --mark 0x539 -j RETURN"),
    ("today-tproxy-dual-interfaces", "-p tcp -m owner --gid-owner 1337 -j MARK --set-xmark 0x53a/0xffffffff"),
}


@pytest.mark.parametrize(("name", "rule"), sorted(TAKEN))
@pytest.mark.parametrize("command", ["--reconcile", "cleanup"])
def test_each_rule_that_is_taken_over_has_a_log_line(
    scratch: Scratch, name: str, rule: str, command: str
) -> None:
    left = read(name)
    load(scratch, left, "nft")
    done = run(scratch, left, *LOCATIONS["nft"], command)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if rule in line], done.stderr


@every_variant
@pytest.mark.parametrize("command", ["--reconcile", "cleanup"])
def test_rules_of_interfaces_are_named_with_the_command_that_removes_them(
    scratch: Scratch, variant: Variant, command: str
) -> None:
    """They stay, byte for byte, until that command is run."""
    left = read("today-tproxy-dual-interfaces")
    load(scratch, left, variant)
    done = run(scratch, left, *LOCATIONS[variant], command)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if "\twarn\t" in line and " -D " in line]
    assert len(warnings) == sum(len(left.of_anyone(family)) for family in FAMILIES)
    kept = [line for lines in rules(scratch).values() for line in lines if ANYONES.match(line)]
    assert len(kept) == len(warnings)
    for words in removals(done):
        scratch.check(*words)
    assert not [line for lines in rules(scratch).values() for line in lines if ANYONES.match(line)]
    if command == "--reconcile":
        assert "nothing to do" in run(scratch, left, *LOCATIONS[variant]).stderr

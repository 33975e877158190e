"""prove of the rules in the kernel, apply --prove and diff --verdicts, in every backend."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from istio_iptables.api import build
from istio_iptables.cli import subjects
from istio_iptables.interpreter.ip_names import LOCAL_TABLE, MAIN_TABLE
from istio_iptables.interpreter.routing import LOOPBACK, Network
from istio_iptables.kernel.machine import Machine
from istio_iptables.prove.same import differing
from istio_iptables.prove.space import every_kind
from istio_iptables.settings.facts import Facts
from istio_iptables.trace.world import proxy_of
from tests.support.applying import ALL_SORTS, BACKENDS
from tests.support.configuring import configured
from tests.support.proving import statuses

from ..support.scratch import KERNEL, Scratch

pytestmark = KERNEL

COMMAND = (sys.executable, "-m", "istio_iptables")
WAYS = {**{name: options for name, (options, _) in BACKENDS.items()}, "native": ["--native-nftables"]}
every_way = pytest.mark.parametrize("way", WAYS)
#: A rule of another program that takes what goes to a network before ours do.
TAKES = ("OUTPUT", "-p", "tcp", "-d", "10.9.0.0/16", "-j", "ACCEPT")


@contextmanager
def pod() -> Iterator[Scratch]:
    """A namespace with a way out."""
    with Scratch() as scratch:
        # Addresses can be used at once, whether or not another machine has them.
        scratch.check("sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad")
        scratch.ip("link", "add", "eth0", "type", "veth", "peer", "name", "out")
        scratch.give("out")
        scratch.give("eth0", "10.0.0.2/16", "fd00::2/64")
        scratch.ip("route", "add", "default", "via", "10.0.0.1")
        yield scratch


def command_for(way: str) -> str:
    """The command iptables that writes where a way does, or as near as there is."""
    return {"iptables-nft-restore": "iptables-nft"}.get(way, "iptables-legacy")


def prove(scratch: Scratch, *arguments: str, status: int = 3) -> dict[str, Any]:
    ran = scratch.run(*COMMAND, *arguments, "--json")
    assert ran.returncode == status, (ran.stdout, ran.stderr)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def verdict(scratch: Scratch, line: str) -> str:
    """The verdict that a command line gives which was printed to be pasted."""
    _, *arguments = shlex.split(line)
    ran = scratch.run(*COMMAND, *arguments, "--json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)["hops"][0]["verdict"]
    return f"{found['code']} {found['to']}".strip()


# --- prove --live -----------------------------------------------------------------------------


@every_way
def test_rules_in_place_are_proved_and_a_foreign_rule_is_named(way: str) -> None:
    with pod() as scratch:
        scratch.apply("--dual-stack", *WAYS[way])
        before = scratch.state()
        assert prove(scratch, "--dual-stack", "prove", "--live", status=0)["proved"]
        assert prove(scratch, "prove", "--live", status=0)["proved"], "by the settings that the rules mean"
        assert prove(scratch, "--dual-stack", *WAYS[way], "prove", "--same-as", "live", status=0)["same"]
        scratch.check(
            "nft",
            "add table ip other; add chain ip other out { type filter hook output priority 0; };"
            " add rule ip other out tcp dport 25 drop",
        )
        found = prove(scratch, "--dual-stack", "prove", "--live")
        assert statuses(found)["outbound-captured"] == "PROVED"  # nat has redirected it before
        assert statuses(found)["proxy-left-alone"] == "REFUTED"
        for each in found["refutations"]:
            assert [cause["foreign"] for cause in each["because_of"]][-1]
            assert "tcp dport 25 drop" in each["because_of"][-1]["text"]
        assert verdict(scratch, found["refutations"][0]["trace"]) == "dropped"
        scratch.check("nft", "delete table ip other")
        assert scratch.state() == before


def test_packets_that_differ_from_the_kernels_can_be_pasted() -> None:
    with pod() as scratch:
        scratch.apply("-x", "10.8.0.0/16")
        found = prove(scratch, "-x", "10.9.0.0/16", "prove", "--same-as", "live")
        pairs = set()
        for each in found["packets"]:
            verdicts = [f"{one['code']} {one['to']}".strip() for one in each["verdicts"]]
            assert [verdict(scratch, line) for line in each["traces"]] == verdicts
            pairs.add(tuple(verdicts))
        assert {("redirected 15001", "direct"), ("direct", "redirected 15001")} <= pairs


def test_without_privilege_the_kernels_rules_cannot_be_read() -> None:
    with pod() as scratch:
        scratch.apply()
        ran = scratch.run("setpriv", "--bounding-set=-all", "--inh-caps=-all", *COMMAND, "prove", "--live")
        assert (ran.returncode, ran.stdout) == (1, "")


def test_dead_rules_of_the_kernel_are_found() -> None:
    with pod() as scratch:
        scratch.apply("-u", "1337", "-g", "1338")
        scratch.check("iptables-legacy", "-t", "nat", "-I", *TAKES)
        dead = "-A OUTPUT -d 10.9.1.0/24 -p tcp -j ACCEPT"
        scratch.check("iptables-legacy", "-t", "nat", "-I", "OUTPUT", "2", *shlex.split(dead)[2:])
        found = {each["text"]: each for each in prove(scratch, "prove", "--dead", "--live")["dead"]}
        assert [taker["text"] for taker in found[dead]["taken_by"]] == [
            "-A OUTPUT -d 10.9.0.0/16 -p tcp -j ACCEPT"
        ]


# --- apply --prove ----------------------------------------------------------------------------


@every_way
def test_apply_refuses_what_is_refuted_and_leaves_everything_as_it_is(way: str) -> None:
    with pod() as scratch:
        scratch.apply(*WAYS[way], "-d", "15020")
        scratch.check(
            "nft",
            "add table ip other; add chain ip other out { type nat hook output priority -150; };"
            " add rule ip other out tcp dport 81 dnat to 10.3.3.3",
        )
        before = scratch.state(counters=True), scratch.network()
        wanted = [*COMMAND, "--prove", "--reconcile", *WAYS[way], "-d", "15021"]
        refused = scratch.run(*wanted)
        assert refused.returncode == 1
        assert "dnat to 10.3.3.3" in refused.stdout
        assert "error\t--prove: " in refused.stderr
        assert (scratch.state(counters=True), scratch.network()) == before
        scratch.check("nft", "delete table ip other")
        done = scratch.run(*wanted)
        assert done.returncode == 0, done.stderr
        assert "properties are proved, for every packet" in done.stderr
        again = scratch.run(*wanted, env={"PROVE": "true"})
        assert again.returncode == 0
        assert "--prove: All " in again.stderr


def test_the_setting_is_a_variable_and_a_key_too(tmp_path: Any) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("prove: true\n")
    with pod() as scratch:
        scratch.check("iptables-legacy", "-t", "nat", "-A", *TAKES)
        before = scratch.state()
        for way, env in (([], {"PROVE": "1"}), (["--config", str(file)], {})):
            ran = scratch.run(*COMMAND, *way, env=env)
            assert ran.returncode == 1, ran.stderr
            assert scratch.state() == before
        assert scratch.run(*COMMAND).returncode == 0


def test_what_is_not_modelled_is_a_warning() -> None:
    with pod() as scratch:
        scratch.check(
            *("iptables-legacy", "-t", "nat", "-A", "OUTPUT", "-p", "tcp"),
            *("-m", "string", "--string", "x", "--algo", "bm", "-j", "ACCEPT"),
        )
        ran = scratch.run(*COMMAND, "--prove")
        assert ran.returncode == 0, ran.stderr
        assert "--prove: it depends on rule 1 of OUTPUT in nat" in ran.stderr


# --- diff --verdicts --------------------------------------------------------------------------


@every_way
def test_a_difference_that_no_packet_meets_and_one_that_some_do(way: str) -> None:
    def settings(excluded: str) -> list[str]:
        return [*WAYS[way], "-x", excluded]

    with pod() as scratch:
        scratch.apply(*settings("10.8.0.0/16"))
        before = scratch.state(counters=True)
        # What goes to 127.0.0.1 is left alone whatever -x says.
        same = scratch.run(*COMMAND, *settings("10.8.0.0/16,127.0.0.1"), "diff", "--verdicts")
        assert same.returncode == 3
        assert same.stdout.splitlines()[-1].startswith("The rules differ, no packet does: ")
        found = prove(scratch, *settings("10.8.0.0/16,10.9.0.0/16"), "diff", "--verdicts")
        assert found["differs"]
        first = found["verdicts"]["packets"][0]
        assert [each["code"] for each in first["verdicts"]] == ["redirected", "direct"]
        assert first["packet"]["destination"].startswith("10.9.")
        assert verdict(scratch, first["traces"][0]) == "redirected 15001"
        assert first["traces"][1] is None, "the rules that it would be by are nowhere yet"
        assert scratch.run(*COMMAND, *settings("10.8.0.0/16"), "diff", "--verdicts").returncode == 0
        assert scratch.state(counters=True) == before


# --- what a plan leads to ---------------------------------------------------------------------


@every_way
def test_what_a_plan_is_said_to_lead_to_is_what_it_leads_to(way: str) -> None:
    """The rules after a plan, foreign ones among them, are those that are read once it is carried out."""
    options = WAYS[way]
    with pod() as scratch:
        for table in ("nat", "mangle"):
            scratch.check(command_for(way), "-t", table, "-A", "OUTPUT", "-d", "10.5.0.0/16", "-j", "ACCEPT")
        for wanted in (ALL_SORTS, ["-m", "TPROXY", "-x", "10.4.0.0/16"], ["--dual-stack"]):
            config = configured(*wanted, facts=Facts(True, True))
            with scratch.inside(), machine_for(options) as machine:
                prepared = machine.plan(build(config))
                [present] = subjects.subjects_of((subjects.in_kernel(),))
                foretold = subjects.of_plan(present, prepared.plan).world
                prepared.apply()
                [there] = subjects.subjects_of((subjects.in_kernel(),))
            same_place = foretold.replace(network=there.world.network)  # where links may have come up since
            kinds = every_kind((there.world,))
            assert differing(same_place, there.world, kinds, proxy_of(config)) == ()
            assert routing(foretold.network) == routing(there.world.network)


def machine_for(options: list[str]) -> Machine:
    forced = options[1] if options[:1] == ["--force-iptables-binary"] else ""
    return Machine(forced_variant=forced, native_nftables=options == ["--native-nftables"])


def routing(network: Network) -> set[object]:
    """The routing rules, the addresses of lo, and the routes of tables that only rules lead to."""
    rules = {(each.family, each.priority, each.condition, each.table) for each in network.rules}
    routes = {(r.family, r.table, r.kind, r.first, r.last, r.interface) for r in network.routes}
    own = {(each.family, each.address) for each in network.addresses if each.interface == LOOPBACK}
    return {*rules, *own, *(route for route in routes if route[1] not in (LOCAL_TABLE, MAIN_TABLE))}


def test_what_has_no_route_is_said_to_be_left_out():
    with pod() as scratch:
        with_one = scratch.run(*COMMAND, "--reconcile", "--prove")
        assert with_one.returncode == 0, with_one.stderr
        assert "no default route of IPv4" not in with_one.stderr
        scratch.ip("route", "del", "default")
        without = scratch.run(*COMMAND, "--reconcile", "--prove", "-x", "10.8.0.0/16")
        assert without.returncode == 0, without.stderr
        assert "warn\t--prove: there is no default route of IPv4" in without.stderr
        said = scratch.run(*COMMAND, "-x", "10.9.0.0/16", "diff", "--verdicts").stdout
        assert "note       there is no default route of IPv4" in said

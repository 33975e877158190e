"""What a plain call does not import, because it costs more than the rest of the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cni import configuration, variables
from tests.support.imports import expensive

ROOT = Path(__file__).parents[2]


BEFORE = "import os, sys; before = set(sys.modules)"
AFTER = "print(*sorted(set(sys.modules) - before), file=sys.__stderr__)"
MAIN = "from istio_iptables.__main__ import main"


def imported(code: str) -> set[str]:
    """The modules that a new interpreter imports for some code, beyond those that it starts with."""
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", f"{BEFORE}\n{code}\n{AFTER}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stderr.splitlines()[-1].split())


POD_SPEC = (
    "['istio-iptables', '-p', '15001', '-z', '15006', '-u', '1337', '-m', 'REDIRECT', '-i', '*', '-x', '', "
    "'-b', '*', '-d', '15090,15021,15020', '--log_output_level=default:info']"
)


def test_importing_the_package_imports_nothing():
    assert imported("import istio_iptables") <= {"istio_iptables", "__future__"}


@pytest.mark.parametrize(
    "extra",
    [
        "[]",
        "['-m', 'TPROXY', '-c', 'eth1']",
        "['--drop-invalid', '--reconcile']",
        "['-b', '80,8000-8100']",
        "['-x', '10.0.0.0/8,fd00::/8']",
        "['-x', '10.0.0.0/8,11.0.0.0/8', '--compact']",
        "['--iptables-probe-port', '15002', '--probe-timeout', '1m30s']",
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no facts are read with netlink")
def test_a_dry_run(extra: str):
    modules = imported(f"{MAIN}\nassert main([*{POD_SPEC}, *{extra}, '-n']) == 0")
    assert "istio_iptables.policy.nat" in modules
    assert expensive(modules) == set()
    assert (
        not {
            "istio_iptables.change",
            "istio_iptables.cli.typer_app",
            "istio_iptables.doctor",
            "istio_iptables.formats.difference",
            "istio_iptables.formats.json",
            "istio_iptables.formats.shell",
            "istio_iptables.interpreter",
            "istio_iptables.pictures",
            "istio_iptables.pod",
            "istio_iptables.prove",
            "istio_iptables.remedies",
            "istio_iptables.settings.yaml_text",
            "istio_iptables.status",
        }
        & modules
    )
    assert {module for module in modules if module.startswith("istio_iptables.kernel")} == {
        "istio_iptables.kernel",
        "istio_iptables.kernel.netlink",
        "istio_iptables.kernel.netlink.messages",
        "istio_iptables.kernel.netlink.routing",
        "istio_iptables.kernel.this_machine",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="the backends are those of Linux")
def test_applying():
    modules = imported(
        f"""{MAIN}
import istio_iptables.cli.handlers
from istio_iptables.api import build, configure
from istio_iptables.kernel.xtables.entries import encode
from istio_iptables.kernel.machine import Machine
from istio_iptables.settings.facts import Facts
from istio_iptables.change.actions import Live
from istio_iptables.change.plan import make_plan
Machine(writing=False)
nothing = Live({{"iptables-legacy": (), "iptables-nft": ()}})
plan = make_plan(nothing, build(configure(environment=Facts())), "iptables-legacy")
assert plan.actions
for _, _, rule in plan.wanted.rules():
    encode(rule, "ipv4")"""
    )
    assert "istio_iptables.kernel.xtables.libiptc" in modules
    assert expensive(modules) == set()
    assert not any("prob" in module or "validation" in module for module in modules)
    assert not {"istio_iptables.cli.typer_app", "istio_iptables.doctor", "istio_iptables.remedies"} & modules
    assert not any("interpreter" in module or "pictures" in module for module in modules)
    assert not any(
        module.startswith(("istio_iptables.status", "istio_iptables.cli.status")) for module in modules
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the plugin is for Linux")
def test_the_cni_plugin():
    """A runtime starts it for each pod: it imports what a plain call does, and its own modules."""
    given = json.dumps(configuration())
    environ = variables(CNI_NETNS="/proc/there-is-none")
    modules = imported(
        f"""import io, os, sys
os.environ.update({environ})
sys.stdin = io.TextIOWrapper(io.BytesIO({given.encode()!r}))
import istio_iptables.__main__
from istio_iptables.cli.log import log
from istio_iptables.cni.plugin import run
assert run(os.environ, log) == 1
assert "istio_iptables.cni.rules" in sys.modules"""
    )
    assert {"istio_iptables.kernel.machine", "istio_iptables.pod.reading"} <= modules
    assert expensive(modules) == set()
    assert (
        not {"istio_iptables.api", "istio_iptables.cli.handlers", "istio_iptables.settings.go_flags"}
        & modules
    )
    assert not any("doctor" in module or "interpreter" in module for module in modules)
    of_manifests = {"pod.manifest", "pod.view", "settings.yaml_text", "settings.positions"}
    assert not {f"istio_iptables.{name}" for name in of_manifests} & modules


def test_status():
    """It is a command for people who wait; what takes longest is still left out."""
    modules = imported(
        f"""{MAIN}
import istio_iptables.cli.handlers, istio_iptables.cli.status_handler
from istio_iptables.api import build, configure
from istio_iptables.settings.facts import Facts
from istio_iptables.status.report import report
from istio_iptables.status.text import text
from istio_iptables.testing import FakeKernel
machine = FakeKernel()
machine.put(build(configure(environment=Facts())))
assert "in place" in text(report(machine.live()))"""
    )
    assert not {"rich", "typer", "yaml", "netaddr", "logging", "pathlib", "dataclasses"} & expensive(modules)
    assert "istio_iptables.cli.status_watch" not in modules


def test_ipv6_networks_as_text():
    modules = imported(
        """from istio_iptables.rules.model import Destination, Cidr
from istio_iptables.formats.iptables_args import matches_and_target
assert str(Cidr(6, 1 << 127, 16)) == "8000::/16"
matches, _ = matches_and_target(["-d", "8000::/16", "-j", "ACCEPT"], ())
assert matches == (Destination(Cidr(6, 1 << 127, 16)),)"""
    )
    assert expensive(modules) == set()


@pytest.mark.parametrize("arguments", ["['--help']", "['help', 'render']"])
def test_help(arguments: str):
    modules = imported(f"{MAIN}\nassert main({arguments}) == 0")
    assert "istio_iptables.cli.help_page" in modules
    assert expensive(modules) == set()
    assert not {"istio_iptables.api", "istio_iptables.cli.handlers", "istio_iptables.kernel"} & modules


def test_the_version():
    modules = imported(f"{MAIN}\nassert main(['--version']) == 0")
    assert "istio_iptables.cli.written" in modules
    assert expensive(modules) == set()
    assert not {"istio_iptables.settings", "istio_iptables.policy", "istio_iptables.kernel"} & modules


def test_bad_settings_are_reported_without_the_expensive_modules():
    modules = imported(f"{MAIN}\nassert main(['-p', '0', '-b', 'x', '-c', 'a/b', '-u', 'no-such-user']) == 2")
    assert expensive(modules) == set()


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        ("['-n', '--config', '/dev/null']", {"yaml"}),
        ("['-n', '--pod', '/dev/null']", {"yaml"}),
        ("['-n', '--log_as_json']", {"json"}),
        ("['render', '--format=json']", {"json"}),
        ("['--show-completion']", {"typer"}),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="no /dev/null")
def test_who_needs_more_imports_more(arguments: str, needed: set[str]):
    modules = imported(f"{MAIN}\ntry: main({arguments})\nexcept SystemExit: pass")
    assert needed <= expensive(modules)


def test_the_library_imports_what_it_is_asked_for():
    modules = imported("from istio_iptables import Facts, SettingsError, Ruleset")
    assert {m for m in modules if m.startswith("istio_iptables.")} == {
        "istio_iptables.rules",
        "istio_iptables.settings",
        "istio_iptables.startup",
        "istio_iptables.settings.facts",
        "istio_iptables.errors",
        "istio_iptables.startup.record",
        "istio_iptables.rules.model",
    }
    assert expensive(modules) == set()

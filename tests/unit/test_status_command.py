"""The command status: comparisons, exit codes, its page, and errors while it watches."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from istio_iptables import Facts
from istio_iptables.change.neighbours import Interference
from istio_iptables.cli import status_handler, streams
from istio_iptables.cli.context import Context as RealContext
from istio_iptables.errors import KernelError
from istio_iptables.rules.model import (
    Redirect,
)
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.startup.c_modules import signal
from istio_iptables.status.changes import changes
from istio_iptables.status.document import document
from istio_iptables.status.report import Status, report
from istio_iptables.testing import FakeKernel
from tests.support.cases import all_cases
from tests.support.command import ROOT
from tests.support.status import counted, edited, in_place, only, rules_for

# --- the command --------------------------------------------------------------------------------


class Context(RealContext):
    """The context of a run on a machine that is not there."""

    def __init__(self, machine: FakeKernel, *arguments: str, **variables: str) -> None:
        super().__init__(read_arguments(arguments), variables)
        self._facts = Facts()  # type: ignore[assignment]
        self._machine = machine

    def machine(self, *, writing: bool) -> Any:
        assert not writing
        return self._machine


def outcome(machine: FakeKernel, *arguments: str, **variables: str) -> tuple[int, str | None]:
    """Run it: the exit code, and how the rules compare with the settings."""
    context = Context(machine, *arguments, "status", "--json", **variables)
    written: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "write", written.append)
        code = status_handler.status(context)
    return code, json.loads(written[0])["compared"]


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["-b", "*"], {}),
        (["--rule-comments=false"], {}),
        (["--native-nftables=false"], {}),
        ([], {"ENVOY_PORT": "15001"}),
        ([], {"ISTIO_SERVICE_CIDR": "*"}),  # a list
        ([], {"INVALID_DROP": "false"}),
        (["--config", "/dev/null"], {}),
    ],
)
def test_settings_ask_for_a_comparison(arguments: list[str], variables: dict[str, str]):
    assert outcome(in_place(rules_for()), *arguments, **variables) == (0, "equal")
    assert outcome(in_place(rules_for(drop_invalid=True)), *arguments, **variables) == (3, "differs")
    assert outcome(FakeKernel(), *arguments, **variables) == (3, "absent")


@all_cases(
    ("arguments", "variables"),
    [
        ([], {}),
        (["--log_output_level=default:debug", "--log_as_json"], {}),
        (["--network-namespace="], {}),
        (["--force-iptables-binary=legacy"], {}),
        (["--reconcile", "--run-validation", "--probe-timeout=1s", "--cni-mode", "--dry-run"], {}),
        (["--vklog=1"], {}),  # accepted, without effect
        ([], {"ENVOY_USER": "istio-proxy", "DRY_RUN_FILE_PATH": "/x", "PATH": "/bin"}),
        ([], {"ENVOY_PORT": "tcp://10.0.0.1:80"}),  # Kubernetes' own, of a Service
        ([], {"ENVOY_PORT": ""}),
    ],
)
def test_how_to_run_asks_for_none(arguments: list[str], variables: dict[str, str]):
    machine = in_place(rules_for(drop_invalid=True))
    assert outcome(machine, *arguments, **variables) == (0, None)
    assert outcome(FakeKernel(), *arguments, **variables) == (3, None)


def test_rules_that_were_changed_are_exit_code_3_without_settings():
    machine = in_place(rules_for())
    edited(machine, "OUTPUT")
    assert outcome(machine) == (3, None)
    assert outcome(machine, "-b", "*") == (3, "differs")


def test_a_pod_that_captures_nothing_is_to_have_no_rules(tmp_path: Path):
    manifest = tmp_path / "pod.yaml"
    manifest.write_text("{kind: Pod, metadata: {annotations: {sidecar.istio.io/interceptionMode: NONE}}}")
    assert outcome(FakeKernel(), "--pod", str(manifest)) == (0, "equal")
    assert outcome(in_place(rules_for()), "--pod", str(manifest)) == (3, "differs")


def test_a_comparison_says_what_differs(capsys: pytest.CaptureFixture[str]):
    context = Context(in_place(rules_for()), "-b", "80", "status")
    assert status_handler.status(context) == 3
    shown = capsys.readouterr().out
    assert "compared  the rules in place differ from those of the settings given\n" in shown
    assert "to those of the settings given (+):\n@ ipv4 nat (iptables-legacy)\n" in shown
    assert "+-A ISTIO_INBOUND -p tcp -m tcp --dport 80 -j ISTIO_IN_REDIRECT\n" in shown


def test_the_interval_is_for_watch(capsys: pytest.CaptureFixture[str]):
    status_handler.status(Context(FakeKernel(), "status", "--interval", "2s"))
    assert "--interval has no effect without --watch" in capsys.readouterr().err


# --- the page -----------------------------------------------------------------------------------


def keys(value: Any) -> set[str]:
    if isinstance(value, list):
        return {key for member in value for key in keys(member)}
    if not isinstance(value, dict):
        return set()
    return {*value, *(key for member in value.values() for key in keys(member))}


def test_the_page_has_every_key_and_every_code():
    page = (ROOT / "docs" / "status.md").read_text()
    machine = in_place(rules_for(inbound_ports="80"))
    finding = Interference("ip nat", "DOCKER", "dnat", "bypass", ("x",))
    found = document(report(edited(machine, "OUTPUT")).replace(before=(finding,)))
    for place in found["places"]:
        place["settings"] = place["variables"] = {}  # names of settings
    states = {"in-place", "altered", "absent", "ambient", "equal", "differs"}
    codes = set(re.findall(r'"([a-z]+-[a-z-]+)"', (ROOT / "istio_iptables/status/counters.py").read_text()))
    codes |= {"nothing-captured-outbound", "nothing-captured-inbound"}
    assert "nat-counts-connections" in codes
    change = only(changes(*_two_looks()))
    for name in keys(found) | {*change.as_dict(), "type", "time", "seconds", "counters"} | codes | states:
        assert f"`{name}`" in page, name


def _two_looks() -> tuple[Status, Status]:
    live = in_place(rules_for()).live()
    key = ("ISTIO_REDIRECT", Redirect(15001))
    return report(live), report(counted(live, {key: 5}))


# --- --watch, but for terminals and pipes: tests/kernel/test_status.py has these ------------------


def test_an_error_ends_the_watch(monkeypatch: pytest.MonkeyPatch):
    """It is reported as that of every command: cli/handlers.py does that."""
    from istio_iptables.cli import status_watch

    there, gone = report(in_place(rules_for()).live()), report(FakeKernel().live())
    looks = iter([there, None, gone, None, None])  # once may be since rules were being replaced
    written: list[str] = []

    def look() -> Status:
        found = next(looks)
        if found is None:
            raise KernelError("it cannot be read", "do something")
        return found

    monkeypatch.setattr(streams, "write", written.append)
    monkeypatch.setattr(status_watch, "_wait", lambda _: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(KernelError, match="it cannot be read"):
        status_watch.watch(look, 1.0, as_json=True)
    assert [json.loads(line)["state"] for line in written] == ["in-place", "absent"]

"""The counts of ADD: what is counted, as a whole file at every moment, however many count at once."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from istio_iptables.cni import metrics
from istio_iptables.cni.decision import REASONS
from istio_iptables.cni.metrics import Outcome
from tests.support.cni import INJECTED, call, configuration, variables
from tests.support.netns import ROOT

PREFIX = "istio_iptables_cni_"
#: A line of the exposition format, as far as it is used here:
#: https://prometheus.io/docs/instrumenting/exposition_formats/
LINE = re.compile(r'# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z]+="[^"\\]*"\})? [0-9.e+-]+')


def series(text: str) -> dict[str, float]:
    lines = text.splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    assert text.endswith("\n")
    found = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    assert len({name for name, _, _ in found}) == len(found)
    return {name.removeprefix(PREFIX): float(value) for name, _, value in found}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "metrics.prom")


def test_without_a_file_everything_known_is_zero(path):
    found = series(metrics.text(path))
    assert set(found.values()) == {0}
    assert {f'skips_total{{reason="{reason}"}}' for reason in REASONS} <= set(found)
    assert {f'adds_total{{result="{result}"}}' for result in ("captured", "skipped", "failed")} <= set(found)


def test_each_call_is_counted_once_by_result_reason_and_code(path):
    for outcome in (
        Outcome("captured", "", 0.03),
        Outcome("captured", "", 0.3),
        Outcome("skipped", "ambient", 0.01),
        Outcome("failed", "11", 6.0),
        Outcome("failed", "5", 60.0),
        Outcome("failed", "11", 0.001),
    ):
        assert metrics.count(path, outcome) == ""
    found = series(metrics.text(path))
    assert {name: value for name, value in found.items() if value and "bucket" not in name} == {
        'adds_total{result="captured"}': 2,
        'adds_total{result="skipped"}': 1,
        'adds_total{result="failed"}': 3,
        'skips_total{reason="ambient"}': 1,
        'failures_total{code="11"}': 2,
        'failures_total{code="5"}': 1,
        "add_seconds_sum": pytest.approx(66.341),
        "add_seconds_count": 6,
    }
    buckets = [value for name, value in found.items() if "bucket" in name]
    assert buckets == [2, 3, 3, 3, 4, 4, 4, 4, 5, 6]  # of 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, +Inf


def test_types_stand_before_their_series(path):
    lines = metrics.text(path).splitlines()
    for family, kind in (
        ("adds_total", "counter"),
        ("skips_total", "counter"),
        ("failures_total", "counter"),
        ("add_seconds", "histogram"),
    ):
        at = lines.index(f"# TYPE {PREFIX}{family} {kind}")
        assert lines[at - 1].startswith(f"# HELP {PREFIX}{family} ")
        assert all(line.startswith(f"{PREFIX}{family}") for line in lines[at + 1 : at + 2] if line[0] != "#")


@pytest.mark.parametrize("content", ["", "nonsense\n", "istio_iptables_cni_adds_total{result=", "\xff"])
def test_a_damaged_file_begins_again(path, content):
    os.makedirs(os.path.dirname(path))
    Path(path).write_text(content)
    assert metrics.count(path, Outcome("captured", "", 0.1)) == ""
    assert series(metrics.text(path))['adds_total{result="captured"}'] == 1


def test_what_cannot_be_counted_says_why(tmp_path):
    (tmp_path / "file").write_text("")
    assert metrics.count(str(tmp_path / "file" / "metrics.prom"), Outcome("captured", "", 0.1))
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert "locked" in metrics.count(str(tmp_path / "metrics.prom"), Outcome("captured", "", 0.1))
    os.close(lock)


def test_many_that_count_at_once_are_all_counted_and_a_reader_sees_whole_files(path):
    code = (
        "from istio_iptables.cni import metrics\n"
        "metrics._PATIENCE = 60.0\n"  # a machine may be so busy that others hold the lock for its one second
        f"for _ in range(50): assert not metrics.count({path!r}, metrics.Outcome('captured', '', 0.1))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(4)]
    last = 0.0
    while any(process.poll() is None for process in running):
        now = series(metrics.text(path))['adds_total{result="captured"}']
        assert now >= last
        last = now
    assert [process.returncode for process in running] == [0] * 4
    assert series(metrics.text(path))['adds_total{result="captured"}'] == 200
    assert os.listdir(os.path.dirname(path)) == ["metrics.prom"]


def test_calls_of_the_plugin_are_counted(monkeypatch, path):
    call(monkeypatch, variables(), configuration({}, metrics_file=path))
    call(monkeypatch, variables(), configuration(INJECTED, metrics_file=path))  # no network namespace
    call(monkeypatch, variables(), configuration(None, metrics_file=path))
    call(monkeypatch, variables("CHECK"), configuration({}, metrics_file=path))
    call(monkeypatch, variables("DEL"), configuration({}, metrics_file=path))
    found = series(metrics.text(path))
    assert found['skips_total{reason="no-status"}'] == 1
    assert found['failures_total{code="3"}'] == found['failures_total{code="11"}'] == 1
    assert found["add_seconds_count"] == 3


def test_a_count_that_fails_is_no_failure_of_the_call(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    given = configuration({}, metrics_file=str(tmp_path / "file" / "metrics.prom"))
    found = call(monkeypatch, variables(), given)
    assert found.status == 0
    assert any(line.startswith("debug not counted") for line in found.log)

"""The benchmark's instruments measure what they say, in places of their own; how long is no matter."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench import cni, datapath, lists, many, place, processes, runs, timing
from tests.bench.timing import Case, Command

pytestmark = pytest.mark.kernel


@pytest.fixture
def bench(tmp_path):
    return place.Bench(tmp_path, rounds=2, warm_up=1, connections=20)


def network() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def test_every_run_of_a_case_has_a_new_namespace_and_its_preparation_is_in_it(bench):
    here, log = network(), bench.folder / "log"
    tell = f"readlink /proc/self/ns/net >>{log}"
    looking = Command(("sh", "-c", f"{tell}; ip -brief address show dev eth0 >{log}.address"))
    cases = [Case(name, looking, (Command(("sh", "-c", tell)),)) for name in ("one", "other")]
    found = timing.measure(cases, bench)
    prepared, measured = log.read_text().split()[::2], log.read_text().split()[1::2]
    assert prepared == measured
    assert len(measured) == 2 * (3 + 3 + 3 + 1)  # rounds and warm-up, then memory twice and processes
    assert here not in measured
    assert place.POD in Path(f"{log}.address").read_text()
    assert network() == here
    assert found["one"]["wall"]["low"] > 0


def test_processor_time_and_memory_are_those_of_child_processes_too(bench):
    busy = "sum(range(2_000_000)); x = bytearray(50_000_000); import time; time.sleep(0.3)"
    child = Command(
        (sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])")
    )
    lazy = Command((sys.executable, "-c", "pass"))
    assert timing.run(child, bench.environment).cpu > timing.run(lazy, bench.environment).cpu
    assert timing.peak(child, bench.environment) > 50e6 > timing.peak(lazy, bench.environment)
    assert (timing.tree(child, bench.environment) or 0) > 50e6 > (timing.tree(lazy, bench.environment) or 0)


@pytest.mark.parametrize(
    ("script", "started"), [("exit 0", 1), ("/bin/true; /bin/true", 3), ("(/bin/true; :)", 3)]
)
def test_processes_are_counted_with_those_that_they_start(bench, script: str, started: int):
    assert timing.processes(Command(("sh", "-c", f"{script}; :")), bench.environment) == started


def test_memory_that_is_one_and_the_same_counts_once():
    # Threads, as they share their memory just as a process does that is about to become another program.
    code = """import threading, time, sys
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print(*(thread.native_id for thread in threading.enumerate()), flush=True)
sys.stdin.read()"""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout
        one, other = map(int, process.stdout.readline().split())
        assert one != other
        alone = processes.memory([one])
        assert (
            1e6 < processes.memory([one, other]) < 1.5 * alone
        )  # what others share with it changes meanwhile
        assert processes.memory([other], besides=[one]) == 0
        assert processes.memory([one, os.getpid()]) > 1.5 * alone
        process.communicate()
    assert processes.memory([one]) == 0


def test_a_command_reads_its_input_and_its_failure_says_why(bench):
    place.check(("true",))
    timing.run(Command(("grep", "-q", "wanted"), "wanted\n"), bench.environment)
    with pytest.raises(place.Failed, match="status 768: no such luck"):
        timing.run(Command(("sh", "-c", "echo no such luck >&2; exit 3")), bench.environment)


@pytest.mark.parametrize("manner", many.MANNERS, ids=lambda manner: manner.name)
def test_runs_that_start_at_once_leave_rules_each_in_its_own_namespace(bench, manner):
    started = many.start(3, manner, bench)
    assert [run.status for run in started.runs] == [0, 0, 0]
    assert all(run.wall >= run.asleep and run.cpu > 0 for run in started.runs)
    used = {path.name for path in bench.folder.glob("*.lock")}
    expected = {many.OWN: {"0.lock", "1.lock", "2.lock"}, many.CNI: set(), many.SHARED: {"shared.lock"}}
    assert used == expected.get(manner.name, expected[many.OWN])


def test_a_failed_run_is_reported_as_failed(bench):
    started = many.start(2, many.Manner("wrong", ("--envoy-port", "0")), bench)
    assert [run.status for run in started.runs] == [2, 2]
    assert all("--envoy-port" in run.message for run in started.runs)


def test_connections_are_measured_through_rules_that_are_in_force(bench):
    bare, *others, everything = datapath.variants((3,))
    (native,) = (variant for variant in others if variant.name == lists.NATIVE.name)
    before = set(processes.descendants(os.getpid()))
    with contextlib.ExitStack() as until:
        for variant in (bare, everything, native):
            lane = datapath.make_lane(variant, bench, until)
            assert len(set(processes.descendants(os.getpid())) - before) >= 1
            assert datapath.cost_of_connection(lane, 20) > 0
            with lane.pod.inside():
                assert datapath.captured() is (
                    variant is native
                )  # by root, who is in no group of `everything`
                rules = place.check(("nft", "list", "ruleset"))
        assert datapath.LAST in rules
    assert set(processes.descendants(os.getpid())) == before


def test_rules_that_are_not_there_are_not_measured(bench, monkeypatch):
    monkeypatch.setattr(datapath, "TOOL", "true")
    with pytest.raises(place.Failed, match="not in force"), contextlib.ExitStack() as until:
        datapath.make_lane(datapath.Variant("forgotten", 3), bench, until)


def test_calls_of_the_cni_plugin_are_for_pods_and_leave_the_node_alone(bench):
    section = cni.take(bench._replace(rounds=1, warm_up=0), at_once=2)
    names = [row["what"] for row in section["rows"]]
    assert names[:6] == [runs.BARE, cni.RESTORE, cni.ADD, cni.CHECK, cni.DEL, cni.SKIPPED]
    assert names[-1] == "ADD, 2 at once, until the last is done"
    assert all(row["wall"]["low"] > 0 for row in section["rows"])
    counted = (bench.folder / "metrics.prom").read_text()
    assert 'adds_total{result="captured"} 7' in counted  # alone, before CHECK and DEL, and twice two at once
    assert 'adds_total{result="skipped"} 1' in counted
    assert [check["wanted"] for check in cni.checks(section)] == [60.0, 3.0]

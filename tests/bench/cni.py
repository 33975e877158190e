"""What the CNI plugin adds to the start of a pod: one call, many at once, and beside a plugin of others."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .figures import Check, ratio, spread
from .place import ROOT, TOOL, Bench, Failed, Namespace, make_pod
from .runs import BARE, WAYS, script_for
from .timing import Command, Usage, clearing_up, run, spawn

PLUGIN = str(Path(sys.executable).with_name("istio-iptables-cni"))
ADD, CHECK, DEL, SKIPPED = "ADD", "CHECK", "DEL", "ADD of a pod without a sidecar"
BRIDGE, RESTORE = "ADD of bridge and host-local alone", "iptables-legacy-restore"
AT_ONCE = 50
MANY = "ADD, {count} at once, until the last is done"
#: What one ADD may take: milliseconds, and times (bare interpreter + restore).
WANTED_MS, WANTED_TIMES = 60.0, 3.0
_STATUS = json.dumps({"initContainers": ["istio-validation"], "containers": ["istio-proxy"]})


class Call(NamedTuple):
    """A call to measure: a program, what is called before it, and whether it runs inside of the pod."""

    name: str
    command: Command
    cni: str = ""  #: CNI_COMMAND
    before: tuple[str, ...] = ()
    inside: bool = False


def configuration(annotations: dict[str, str], bench: Bench) -> str:
    """Return what a runtime gives to the plugin, which counts, as it does unless it is told otherwise."""
    result = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/24"}], "dns": {}}
    return json.dumps(
        {
            "cniVersion": "1.0.0",
            "name": "pods",
            "type": "istio-iptables-cni",
            "capabilities": {"io.kubernetes.cri.pod-annotations": True},
            "runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations},
            "metrics_file": str(bench.folder / "metrics.prom"),
            "prevResult": result,
        }
    )


def ours(bench: Bench) -> Command:
    """Return a call of the plugin for a pod with a sidecar."""
    return Command((PLUGIN,), configuration({"sidecar.istio.io/status": _STATUS}, bench))


def calls(bench: Bench) -> list[Call]:
    """Return what is measured."""
    way = next(way for way in WAYS if way.name == "legacy")
    script = script_for(way, (TOOL, "-o", "15020", "-d", "15020,15021,15090"), bench)
    found = [
        Call(BARE, Command((sys.executable, "-c", "pass"))),
        Call(RESTORE, Command(way.loader, script), inside=True),
        Call(ADD, ours(bench), "ADD"),
        Call(CHECK, ours(bench), "CHECK", ("ADD",)),
        Call(DEL, ours(bench), "DEL", ("ADD",)),
        Call(SKIPPED, Command((PLUGIN,), configuration({}, bench)), "ADD"),
    ]
    bridge = _bridge(bench)
    return [*found, *([Call(BRIDGE, bridge, "ADD")] if bridge else [])]


def _bridge(bench: Bench) -> Command | None:
    """Return a call of Debian's bridge, if it is here: tools/foreign-programs fetches it."""
    for folder in (ROOT / ".foreign-programs/root/usr/lib/cni", Path("/usr/lib/cni"), Path("/opt/cni/bin")):
        if (folder / "bridge").exists():
            ranges = [[{"subnet": "10.77.0.0/16"}]]
            ipam = {"type": "host-local", "dataDir": str(bench.folder / "ipam"), "ranges": ranges}
            given = {"cniVersion": "1.0.0", "name": "pods", "type": "bridge", "bridge": "cni0", "ipam": ipam}
            return Command((str(folder / "bridge"),), json.dumps(given))
    return None


def environment(bench: Bench, command: str, pod: Namespace, number: int, program: str) -> dict[str, str]:
    """Return the variables of a call for a pod."""
    return {
        **bench.environment,
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": f"c{number}",
        "CNI_NETNS": f"/proc/{os.getpid()}/fd/{pod.descriptor}",
        "CNI_IFNAME": "net0",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web",
        "CNI_PATH": str(Path(program).parent),
    }


def take(bench: Bench, at_once: int = AT_ONCE) -> dict[str, Any]:
    """Measure, and return the section of the results."""
    wanted = calls(bench)
    samples: dict[str, list[Usage]] = {call.name: [] for call in wanted}
    number = 0
    for turn in range(-bench.warm_up, bench.rounds):
        with clearing_up() as until:
            node = make_pod(until)
            for call in wanted if turn % 2 == 0 else wanted[::-1]:
                number += 1
                usage = _measured(call, bench, node, make_pod(until), number)
                if turn >= 0:
                    samples[call.name].append(usage)
    base = [_median(samples[name]) for name in (BARE, RESTORE)]
    rows = [_row(name, found, base) for name, found in samples.items()]
    return {"rounds": bench.rounds, "rows": [*rows, _at_once(bench, at_once)]}


def _measured(call: Call, bench: Bench, node: Namespace, pod: Namespace, number: int) -> Usage:
    def variables(command: str) -> dict[str, str]:
        return environment(bench, command, pod, number, call.command.words[0])

    with (pod if call.inside else node).inside():
        for command in call.before:
            run(call.command, variables(command))
        return run(call.command, variables(call.cni) if call.cni else bench.environment)


def _median(found: list[Usage]) -> float:
    return spread([usage.wall for usage in found])["median"]


def _row(name: str, found: list[Usage], base: list[float]) -> dict[str, Any]:
    return {
        "what": name,
        "at_once": 1,
        "wall": spread([usage.wall for usage in found]),
        "cpu": spread([usage.cpu for usage in found]),
        "times": None if name in (BARE, RESTORE) else ratio(_median(found), *base),
    }


def _at_once(bench: Bench, count: int) -> dict[str, Any]:
    """Measure many calls at one moment: how long the last takes, and what each takes of a processor."""
    walls, processor = [], []
    for turn in range(-1, max(bench.rounds // 4, 1)):
        with clearing_up() as until:
            node = make_pod(until)
            pods = [make_pod(until) for _ in range(count)]
            with node.inside():
                wall, cpu = _together(bench, pods, until.callback)
            if turn >= 0:
                walls.append(wall)
                processor += cpu
    return {
        "what": MANY.format(count=count),
        "at_once": count,
        "wall": spread(walls),
        "cpu": spread(processor),
        "times": None,
    }


def _together(bench: Bench, pods: list[Namespace], until: Callable[..., Any]) -> tuple[float, list[float]]:
    errors = os.memfd_create("standard error")
    until(os.close, errors)
    command = ours(bench)
    begin = time.perf_counter()
    started = [
        spawn(command, environment(bench, "ADD", pod, number, PLUGIN), errors)
        for number, pod in enumerate(pods)
    ]
    ended = [os.wait4(pid, 0) for pid in started]
    wall = time.perf_counter() - begin
    failed = [status for _, status, _ in ended if status]
    if failed:
        said = os.pread(errors, 10_000, 0).decode(errors="replace")[-500:]
        raise Failed(f"{len(failed)} of {len(pods)} calls failed: {said}")
    return wall, [used.ru_utime + used.ru_stime for _, _, used in ended]


def checks(section: dict[str, Any]) -> list[Check]:
    """Return what was wanted of these figures."""
    row = next(row for row in section["rows"] if row["what"] == ADD)
    wall = row["wall"]["median"] * 1e3
    return [
        {"what": "CNI plugin: ADD", "wanted": WANTED_MS, "reached": wall, "unit": "ms"},
        {
            "what": "CNI plugin: ADD",
            "wanted": WANTED_TIMES,
            "reached": row["times"],
            "unit": "times (bare + restore)",
        },
    ]

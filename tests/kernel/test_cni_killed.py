"""ADD is killed halfway, as by a runtime that is ended: what it leaves, and what the next call does."""

from __future__ import annotations

import json
import random
import signal
import sys
from collections.abc import Mapping
from typing import TypeAlias

import pytest

from tests.support import cni, snapshots
from tests.support.scratch import KERNEL, PACKAGE_FOLDER, Result, Scratch, wait_until

pytestmark = KERNEL

BACKENDS: Mapping[str, Mapping[str, object]] = {
    "libiptc": {},
    "legacy": {"force-iptables-binary": "legacy"},
    "nft": {"force-iptables-binary": "nft"},
    "native": {"native-nftables": True},
}
#: Both families, two tables of each, routes and routing rules.
SETTINGS = {"dual-stack": True, "istio-inbound-interception-mode": "TPROXY", "redirect-dns": True}
#: So many calls are killed for each backend, at moments all over the part that may write.
_KILLS = 6
#: The plugin, killed at the N-th call or return of a function from the beginning of `put_in_place` on. With 0
#: it goes on to its end, and says on standard error how many there were.
_PROGRAM = """
import os, signal, sys
kill_at, itself, seen, begun = int(sys.argv[1]), os.getpid(), 0, False
def profile(frame, event, argument):
    global seen, begun
    begun = begun or frame.f_code.co_name == "put_in_place"
    seen += begun and os.getpid() == itself  # libiptc's processes inherit this function
    if begun and seen == kill_at:
        os.kill(itself, signal.SIGKILL)
from istio_iptables.cli.log import log
from istio_iptables.cni import plugin
sys.setprofile(profile)
status = plugin.run(os.environ, log)
sys.setprofile(None)
print("seen", seen, file=sys.stderr)
sys.exit(status)
"""


#: Rules by table, and addresses, routes and routing rules.
State: TypeAlias = dict[str, list[str]]


class Called:
    """A pod, and calls of the plugin for it."""

    def __init__(self, pod: Scratch, node: Scratch, settings: Mapping[str, object]) -> None:
        self.pod, self._node = pod, node
        self._given = json.dumps(cni.configuration(settings={**SETTINGS, **settings}))

    def __call__(self, command: str, kill_at: int = 0) -> Result:
        path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(PACKAGE_FOLDER)}
        variables = {**cni.variables(command, CNI_NETNS=self.pod.path), **path}
        words = [sys.executable, "-c", _PROGRAM, str(kill_at)]
        return self._node.run(*words, stdin=self._given, env=variables)

    def state(self) -> State:
        """What is in place, by tables, each of which changes as one."""
        tables = {" ".join(key): lines for key, lines in snapshots.rules(self.pod).items()}
        native = self.pod.nft("-s", "list", "ruleset").split("table ")
        own = [table for table in native if table.startswith("inet istio-proxy")]
        return {**tables, "native": own, **snapshots.routing(self.pod)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_add_that_is_killed_leaves_nothing_that_the_next_call_does_not_put_right(backend: str) -> None:
    chance = random.Random(backend)
    with Scratch(addresses=True) as pod, Scratch() as node:
        call = Called(pod, node, BACKENDS[backend])
        before = call.state()
        done = call("ADD")
        assert done.returncode == 0, done.stdout
        total = int(done.stderr.split()[-1])
        wanted = call.state()
        assert call("CHECK").returncode == 0
        for number in range(_KILLS):
            assert call("DEL").returncode == 0
            assert call.state() == before
            share = total / _KILLS
            done = call("ADD", 1 + int(chance.uniform(number, number + 1) * share))
            assert done.returncode == -signal.SIGKILL
            assert done.stdout == ""
            wait_until(
                lambda: is_between(call.state(), before, wanted)
            )  # a program of its may be at work yet
            if number % 2:
                continue  # DEL is next, as for a pod that is given up
            done = call("ADD")
            assert done.returncode == 0, done.stdout
            assert call.state() == wanted
            assert call("CHECK").returncode == 0


def is_between(now: State, before: State, wanted: State) -> bool:
    """Tell whether each table is as before or as wanted, and of routing each line is."""
    for key in {*now, *before, *wanted}:
        found, old, new = (state.get(key, []) for state in (now, before, wanted))
        is_routing = key.endswith(("-4", "-6"))
        if found not in (old, new) and not (is_routing and set(old) <= set(found) <= set(new)):
            return False
    return True

"""Many runs at once, and runs beside programs of other people: they end as one run ends (SPEC section 5).

With the profile `fuzz` (`make soak`) 50 runs start together, and strangers are at work for 30 seconds; each
test prints its figures.
"""

from __future__ import annotations

import re
import time
from collections import Counter

import pytest

from tests.support.applying import ALL_SORTS
from tests.support.failing import OTHER, at_once, comparable
from tests.support.faults import BACKENDS
from tests.support.profile import SOAK

from ..support.scratch import KERNEL, Scratch

pytestmark = KERNEL

MANY = 50 if SOAK else 4
SECONDS = 30.0 if SOAK else 0.0

each_backend = pytest.mark.parametrize("backend", BACKENDS)


def state_of(*arguments: str) -> dict[str, object]:
    """Return what a run alone leaves."""
    with Scratch(addresses=True) as alone:
        alone.apply(*arguments)
        return state(alone)


def state(scratch: Scratch) -> dict[str, object]:
    return comparable(scratch.state())


@each_backend
@pytest.mark.parametrize("same_lock", [True, False], ids=["one lock file", "a lock file each"])
def test_the_same_run_many_times_ends_as_one(backend: str, same_lock: bool) -> None:
    run = [*BACKENDS[backend], *ALL_SORTS]
    begun = time.monotonic()
    with Scratch(addresses=True) as crowded:
        assert at_once(crowded, *[run] * MANY, same_lock=same_lock) == [0] * MANY
        print(f"{backend}: {MANY} runs at once in {time.monotonic() - begun:.1f} s")
        assert state(crowded) == state_of(*run)


@each_backend
def test_runs_with_different_settings_end_as_one_of_them(backend: str) -> None:
    kinds = [[*BACKENDS[backend], *more, "--reconcile"] for more in (ALL_SORTS, OTHER, ["cleanup"])]
    ends = [state_of(*kind) for kind in kinds[:2]]
    ended: Counter[int] = Counter()
    with Scratch(addresses=True) as scratch:
        for _ in range(4 if SOAK else 1):
            runs = [kinds[number % len(kinds)] for number in range(MANY)]
            assert at_once(scratch, *runs) == [0] * MANY
            scratch.apply(*kinds[0])  # what differs from both is then left over, and seen
            assert state(scratch) == ends[0]
            assert at_once(scratch, *(kinds[number % 2] for number in range(MANY))) == [0] * MANY
            ended[ends.index(state(scratch))] += 1
    print(f"{backend}: {MANY} runs of two kinds at once ended as the first, second: {dict(ended)}")


#: What a stranger does again and again: a rule more, by the program that its backend has.
STRANGERS = {
    "libiptc": "iptables-legacy -w 60 -t nat -A OUTPUT -p udp --dport $i -j RETURN",
    "legacy": "ip6tables-legacy -w 60 -t mangle -A PREROUTING -p udp --dport $i -j RETURN",
    "nft": "iptables-nft -w 60 -t nat -A OUTPUT -p udp --dport $i -j RETURN",
    "native": "nft add rule inet other output udp dport $i return",
}
#: What shows these rules.
SHOWN = {
    "libiptc": ["iptables-legacy-save"],
    "legacy": ["ip6tables-legacy-save"],
    "nft": ["iptables-nft-save"],
    "native": ["nft", "list", "table", "inet", "other"],
}


@each_backend
def test_beside_strangers_nothing_is_lost(backend: str) -> None:
    """A stranger adds rules all the time, while this tool replaces its own, removes them, and applies."""
    runs = [[*BACKENDS[backend], *more, "--reconcile"] for more in (ALL_SORTS, OTHER)] + [["cleanup"]]
    loop = f"i=0; while [ ! -e $STOP ]; do i=$((i+1)); {STRANGERS[backend]} || exit 1; done; echo $i"
    done: Counter[int] = Counter()
    with Scratch(addresses=True) as scratch:
        scratch.nft("add", "table", "inet", "other")
        scratch.nft("add", "chain", "inet", "other", "output", "{ type filter hook output priority 7; }")
        stop = scratch.directory / "stop"
        stranger = scratch.spawn("sh", "-c", loop, env={"STOP": str(stop)})
        until = time.monotonic() + SECONDS
        while time.monotonic() < until or done.total() < 6:
            result = scratch.tool(*runs[done.total() % 3])
            assert result.returncode == 0, result.stderr
            done[result.returncode] += 1
        stop.touch()
        output, errors = stranger.communicate(timeout=60)
        assert stranger.returncode == 0, errors
        added = int(output)
        scratch.apply("cleanup")
        shown = scratch.run(*SHOWN[backend]).stdout
        assert re.findall(r"udp .*?dport (\d+)", shown) == [str(n) for n in range(1, added + 1)]
        assert not re.search("ISTIO|istio", "".join(map(str, scratch.state().values())))
    print(f"{backend}: {done.total()} runs beside a stranger that added {added} rules")

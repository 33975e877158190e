"""cni_kills: `put` is killed at random moments while another program rewrites the list and a third reads it.

Processes are forked from the test's, since to start an interpreter takes longer than what is tested.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from istio_iptables.cni.node.folder import Folder
from istio_iptables.cni.node.placement import put
from tests.support.cni_lists import ENTRY, OURS


def forked(work: Callable[[], None]) -> int:
    """Have a new process do something; return its number."""
    process = os.fork()
    if process:
        return process
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        work()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


@contextlib.contextmanager
def in_background(work: Callable[[], None]) -> Iterator[None]:
    """Something goes on as long as the context; it must not have failed by then."""
    process = forked(work)
    try:
        yield
        assert os.waitpid(process, os.WNOHANG) == (0, 0), "it has ended"
    finally:
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def rewrite(path: Path, seed: int) -> Callable[[], None]:
    """A program that writes its list every few milliseconds, as installers do: a new file, without ours."""

    def work() -> None:
        chance = random.Random(seed)
        number = 0
        while True:
            number += 1
            plugins = [{"type": "bridge", "number": number}, {"type": "portmap"}]
            document = {"cniVersion": "1.0.0", "name": "net", "plugins": plugins, "number": number}
            new = path.with_name("theirs.new")
            new.write_text(json.dumps(document, indent=2))
            new.rename(path)
            time.sleep(chance.uniform(0.0005, 0.006))

    return work


def watch(path: Path, report: Path) -> Callable[[], None]:
    """A reader that writes down the first text that no one may ever see."""

    def work() -> None:
        newest = 0
        while True:
            text = path.read_text()
            why, newest = problem(text, newest)
            if why:
                report.write_text(f"{why}:\n{text}")
                os._exit(1)

    return work


def problem(text: str, newest: int) -> tuple[str, int]:
    """What is wrong with the list as it is, and the newest number in it."""
    try:
        document = json.loads(text)
        numbers = [document["number"], document["plugins"][0]["number"]]
        types = [plugin["type"] for plugin in document["plugins"]]
    except (ValueError, KeyError) as error:
        return f"damaged: {error!r}", newest
    if types not in (["bridge", "portmap"], ["bridge", "portmap", OURS]):
        return f"the chain is {types}", newest
    if numbers[0] != numbers[1]:
        return "of two files", newest
    return "", max(newest, numbers[0])


def kill_again_and_again(folder: Path, times: int, seed: int) -> None:
    """Start `put` over and over, and kill it within a few milliseconds."""
    chance = random.Random(seed)
    for _ in range(times):
        process = forked(lambda: put_for_ever(folder))
        time.sleep(chance.uniform(0.001, 0.03))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def put_for_ever(folder: Path) -> None:
    """Put the entry in place whenever it is not there."""
    while True:
        put(Folder(str(folder)), "chained", ENTRY)

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
from typing import TYPE_CHECKING

from istio_iptables.cni.node.folder import Folder
from istio_iptables.cni.node.placement import put
from tests.support.cni_lists import ENTRY, OURS

if TYPE_CHECKING:
    from istio_iptables.settings.node_commands import Placement


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


def text_of(name: str, number: int) -> str:
    """What a network's installer writes into its file; `number` says which of its texts it is."""
    first = {"type": "bridge", "number": number}
    if name.endswith(".conf"):
        return json.dumps({"cniVersion": "1.0.0", "name": "net", **first})
    plugins = [first, {"type": "portmap"}]
    document = {"cniVersion": "1.0.0", "name": "net", "plugins": plugins, "number": number}
    return json.dumps(document, indent=2)


def rewrite(path: Path, seed: int) -> Callable[[], None]:
    """A program that writes its file every few milliseconds, as installers do: a new file, without ours."""

    def work() -> None:
        chance = random.Random(seed)
        number = 0
        while True:
            number += 1
            new = path.with_name("theirs.new")
            new.write_text(text_of(path.name, number))
            new.rename(path)
            time.sleep(chance.uniform(0.0005, 0.006))

    return work


def watch(folder: Path, report: Path) -> Callable[[], None]:
    """A reader that writes down the first configuration that no runtime may ever see."""

    def work() -> None:
        while True:
            why = problem(folder)
            if why:
                report.write_text(why)
                os._exit(1)

    return work


def problem(folder: Path) -> str:
    """What is wrong with what a runtime would use now: the first file in the order of names, and drop-ins."""
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):  # it has another name by now: look again
            names = sorted(n for n in os.listdir(folder) if n.endswith((".conf", ".conflist")))
            text = (folder / names[0]).read_text() if names else ""
            return _wrong(names[0], text) if names else "there is no network"
    return "no file can be read"


def _wrong(name: str, text: str) -> str:
    try:
        document = json.loads(text)
        chain = [document] if name.endswith(".conf") else document["plugins"]
        types = [plugin["type"] for plugin in chain]
        numbers = {chain[0]["number"], document.get("number", chain[0]["number"])}
    except (ValueError, KeyError, IndexError) as error:
        return f"{name} is damaged: {error!r}:\n{text}"
    if [kind for kind in types if kind != OURS] not in (["bridge", "portmap"], ["bridge"]):
        return f"the chain of {name} is {types}"
    if types.count(OURS) > 1 or (OURS in types and types[-1] != OURS) or len(numbers) > 1:
        return f"the chain of {name} is {types}, of the texts {numbers}"
    return ""


def kill_again_and_again(folder: Path, mode: Placement, times: int, seed: int) -> None:
    """Start `put` over and over, and kill it within a few milliseconds."""
    chance = random.Random(seed)
    for _ in range(times):
        process = forked(lambda: put_for_ever(folder, mode))
        time.sleep(chance.uniform(0.001, 0.03))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def put_for_ever(folder: Path, mode: Placement = "chained") -> None:
    """Put the entry in place whenever it is not there."""
    while True:
        put(Folder(str(folder)), mode, ENTRY)

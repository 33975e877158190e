"""agent: keep the plugin on the node for as long as this process runs.

It looks after every change in the folders and every few seconds besides, puts back what is missing, and says
so. What cannot be done (no network yet, a chain that the plugin cannot work in) is tried again for ever, and
said once until it changes. Nothing is taken out when it ends: pods go on starting without it.
"""

from __future__ import annotations

import os

from ...errors import KernelError
from ...startup.record import Record
from . import tree
from .folder import Folder
from .inotify import Watch
from .placement import problems, put

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from ...settings.node_commands import Placement
    from .listing import Entry

    class Log(Protocol):
        """Where lines go."""

        def info(self, message: str) -> None:
            """Write what was done."""

        def warn(self, message: str) -> None:
            """Write what cannot be done."""


#: Looked at again after so many seconds without a change, in case that one was not seen.
INTERVAL = 10.0


class Node(Record):
    """What is to be on a node: the plugin's entry, how it is put there, and the folders."""

    conf_dir: str
    bin_dir: str
    mode: Placement
    entry: Entry
    launcher: str = ""

    def missing(self) -> list[str]:
        """Return what is not as it should be, nothing if all is. Raises KernelError, OSError."""
        found = (
            []
            if tree.installed(self.bin_dir)
            else [f"{self.bin_dir}: the plugin cannot be started from there"]
        )
        return found + problems(Folder(self.conf_dir), self.mode, self.entry)

    def install(self) -> list[str]:
        """Put the plugin's files and its entry in place, in that order. Return what was done.

        Raises KernelError, OSError.
        """
        return [*self.put_files(), *self.put_entry()]

    def put_files(self) -> list[str]:
        """Put the plugin's files in place, as `install` does. That takes a second."""
        return tree.install(self.bin_dir, self.launcher)

    def put_entry(self) -> list[str]:
        """Put the plugin's entry in place, as `install` does."""
        return put(Folder(self.conf_dir), self.mode, self.entry)


class State:
    """What the agent has found last.

    `problem` is what keeps the plugin from being in place, if anything does. `put_back` counts how often it
    had to be put in place.
    """

    def __init__(self) -> None:
        self.problem = "not looked at yet"
        self.put_back = 0


def keep(node: Node, state: State, log: Log, ended: Callable[[], bool], wake: int = -1) -> None:
    """Keep the plugin in place until `ended` says so; the file `wake` can be read then."""
    watch = Watch()
    try:
        has_files = False
        while not ended():
            # Set before the look, so that what changes after it is seen.
            for folder in (node.conf_dir, node.bin_dir, *_networks(node.conf_dir)):
                watch.add(folder)
            has_files = _look(node, state, log, has_files=has_files)
            watch.wait(INTERVAL, wake)
    finally:
        watch.close()


def _networks(conf_dir: str) -> list[str]:
    try:
        return [os.path.join(conf_dir, name) for name in Folder(conf_dir).subfolders()]
    except OSError:
        return []


def _look(node: Node, state: State, log: Log, *, has_files: bool) -> bool:
    """Look, and put back what is missing. Return whether the files are those of this version."""
    problem = ""
    try:
        if not has_files or not tree.installed(node.bin_dir):
            _did(node.put_files(), state, log)
            has_files = True
        if node.missing():  # the entry alone, at once: pods that start now are without rules
            _did(node.put_entry(), state, log)
    except (KernelError, OSError) as error:
        problem = str(error)
    if problem != state.problem:
        if problem:
            log.warn(problem)
        else:
            log.info("the plugin is in place")
    state.problem = problem
    return has_files


def _did(done: list[str], state: State, log: Log) -> None:
    for line in done:
        log.info(line)
    state.put_back += bool(done)

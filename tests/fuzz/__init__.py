"""Fuzzing: texts and bytes from outside that nobody thought of, found by coverage (atheris, libFuzzer).

A module here is a harness: a place where something from outside comes in. Its docstring says what must hold
of everything; `corpus()` gives what the search begins with, from the fixtures, and `check(data)` fails if it
does not hold. What a harness does not allow fails too: every other exception, a process that takes more than
LIMITS, a recursion without an end.

- argv: the command line
- config: a file of settings (--config)
- pod: a manifest (--pod, `pod lint`)
- resolv_conf: the DNS servers
- iptables_save: what iptables-save prints
- nft_json: what `nft -j` prints
- legacy_entries: the bytes of a table, as getsockopt(2) gives them
- cni_input: what a container runtime writes to the plugin
- dumps: a text that `trace --file` is given, whatever program printed it, and packets through its rules

Two modules are not: `holding` has what holds of several, `__main__` runs them (`make fuzz`). Without atheris
tests/unit/test_fuzz.py has every harness check its corpus, and each part of it cut off in the middle.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

NAMES = (
    "argv",
    "config",
    "pod",
    "resolv_conf",
    "iptables_save",
    "nft_json",
    "legacy_entries",
    "cni_input",
    "dumps",
)


class Limits(NamedTuple):
    """What one run of `check` may take: `seconds` of time, `memory` of the whole process, in MiB."""

    seconds: int
    memory: int


#: Coverage makes it a tenth as fast; the memory has atheris and all that the searching keeps in it.
LIMITS = Limits(seconds=20, memory=1024)


class Harness(NamedTuple):
    """A place where something comes in from outside."""

    name: str
    corpus: Callable[[], Iterable[bytes]]
    check: Callable[[bytes], None]


def harness(name: str) -> Harness:
    """Return a harness by its name, of which the product's modules are imported now."""
    module = importlib.import_module(f"{__name__}.{name}")
    return Harness(name, module.corpus, module.check)

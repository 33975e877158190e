"""checks: what `doctor` looks at on a node: configuration, files, and whether the plugin can work."""

from __future__ import annotations

import json
import os
import subprocess

from ...doctor.model import Answer, Result, bad, doubtful, fine, refused, unchecked
from ...errors import KernelError
from ...startup.record import Record
from ..names import PLUGIN, VERSIONS
from . import tree
from .folder import Folder
from .placement import primary
from .removal import DROP_IN, spots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

#: An answer takes no longer, in seconds.
_TIMEOUT = 30.0
_PUT_IT_THERE = "`istio-iptables cni install` puts it there, and with --watch keeps it there"


class Check(Record):
    """A check: its name, which is the anchor of its section in docs/doctor.md, and what it does."""

    name: str
    examine: Callable[[str, str], Answer]


def examine(conf_dir: str, bin_dir: str) -> tuple[Result, ...]:
    """Make all checks of a node with these folders."""
    return tuple(Result.of(check.name, _answer(check, conf_dir, bin_dir)) for check in CHECKS)


def _answer(check: Check, conf_dir: str, bin_dir: str) -> Answer:
    try:
        return check.examine(conf_dir, bin_dir)
    except KernelError as error:
        return refused(error)
    except OSError as error:
        return unchecked(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _configuration(conf_dir: str, _: str) -> Answer:
    if not os.path.isdir(conf_dir):
        return bad(
            f"{conf_dir} is no folder", "name the one that the container runtime reads with --conf-dir"
        )
    folder = Folder(conf_dir)
    order = tuple(_in_order(folder))
    try:
        first = primary(folder)
    except KernelError as error:
        return refused(error, *order)
    found = list(spots(folder))
    if not found:
        return bad(f"{PLUGIN} is in no network configuration of {conf_dir}", _PUT_IT_THERE, *order)
    if len(found) > 1:
        return doubtful(f"{PLUGIN} is in several files: {', '.join(found)}", _PUT_IT_THERE, *order)
    if found[0].endswith(DROP_IN):
        note = "whether the runtime reads it cannot be seen from here"
        return fine(f"{PLUGIN} is in {found[0]}: {note}", *order)
    name = os.path.basename(found[0])
    if os.fsencode(name) > os.fsencode(first.name):
        return bad(
            f"{PLUGIN} is in {found[0]}, and the runtime uses {first.name}, which comes first",
            _PUT_IT_THERE,
            *order,
        )
    return fine(f"{PLUGIN} is in {found[0]}, which the runtime uses", *order)


def _in_order(folder: Folder) -> Iterator[str]:
    """Yield a line for each configuration, in the order in which a runtime reads them."""
    for found in folder.found():
        if found.listing is None:
            yield f"{found.name}: passed over: {found.why}"
        else:
            chain = ", ".join(str(part.value.get("type")) for part in found.listing.plugins)
            yield f"{found.name}: network {found.listing.network!r}: {chain}"


def _files(_: str, bin_dir: str) -> Answer:
    found = tree.installed(bin_dir)
    if found:
        return fine(f"{os.path.join(bin_dir, PLUGIN)} leads to {found}")
    if os.access(os.path.join(bin_dir, PLUGIN), os.X_OK):
        return fine(f"{os.path.join(bin_dir, PLUGIN)} is there, and not from `cni install`")
    return bad(f"{bin_dir} has no {PLUGIN}", _PUT_IT_THERE)


def _status(conf_dir: str, bin_dir: str) -> Answer:
    """Ask the plugin itself, as a runtime does (STATUS, CNI 1.1)."""
    asked = json.dumps({**_entry(Folder(conf_dir)), "cniVersion": VERSIONS[-1], "name": "doctor"})
    program = os.path.join(bin_dir, PLUGIN)
    environment = {**os.environ, "CNI_COMMAND": "STATUS", "CNI_PATH": bin_dir}
    try:
        done = subprocess.run(
            [program],
            input=asked,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return bad(f"{program} has not answered for {_TIMEOUT:g} seconds", "look what the node is busy with")
    if done.returncode == 0:
        return fine("the plugin says that it can write rules here")
    try:
        error = json.loads(done.stdout)
        said = f"{error['msg']} (code {error['code']})"
        remedy = error.get("details", "")
    except (ValueError, KeyError):
        said, remedy = f"it ended with exit code {done.returncode}", " ".join(done.stderr.split())[:300]
    return bad(f"the plugin says: {said}", remedy or "see docs/cni.md#what-a-message-means")


def _entry(folder: Folder) -> Mapping[str, Any]:
    """Return the plugin's entry as it is on the node, an empty one if there is none."""
    for path in spots(folder):
        if path.endswith(DROP_IN):
            with open(path, encoding="utf-8") as file:
                drop_in: Mapping[str, Any] = json.load(file)
                return drop_in
        found = folder.load(os.path.basename(path))
        if found and found.listing:
            entry: Mapping[str, Any] = found.listing.plugins[found.listing.ours[0]].value
            return entry
    return {"type": PLUGIN}


CHECKS = (
    Check("cni-configuration", _configuration),
    Check("cni-files", _files),
    Check("cni-status", _status),
)

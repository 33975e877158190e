"""cni_handlers: what the commands `cni install`, `cni uninstall`, `cni status` and `cni repair` do."""

from __future__ import annotations

import gc
import os
import signal
import threading
from contextlib import suppress

from ..cni import configuration, metrics
from ..cni.node import agent, serve, tree
from ..cni.node.agent import Node, State
from ..cni.node.folder import Folder
from ..cni.node.in_place import write_rules
from ..cni.node.removal import uninstall as take_out
from ..cni.node.repair import Asked, Counts, Repairer
from ..errors import FOUND, KernelError, SettingsError
from . import streams
from .collect import text_of_file
from .log import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from .context import Context

#: Between two attempts to reach the API, in seconds.
_PAUSE = 5.0


def install(context: Context) -> int:
    """cni install: put the plugin on the node; with --watch keep it there until SIGTERM."""
    options = context.options
    node = _node(context)
    if not options["watch"]:
        useless = [name for name in ("repair", "listen") if options[name]]
        if useless:
            raise SettingsError([f"--{name}: has no effect without --watch" for name in useless])
        done = node.install()
        for line in done or ["the plugin is in place: nothing to do"]:
            log.info(line)
        return 0
    state, counts, ending = State(), Counts(), _Ending()
    if options["repair"]:
        repairer = _repairer(context, options["repair"], counts)
        threading.Thread(target=_repair_until, args=(repairer, ending), daemon=True).start()
    _serve(options["listen"], node, state, counts)
    agent.keep(node, state, log, ending.has_come, ending.wake)
    log.info("ended: the plugin stays in place, and pods go on starting")
    return 0


def uninstall(context: Context) -> int:
    """cni uninstall: take the plugin out of the configuration; its files stay unless they are not wanted."""
    options = context.options
    done = take_out(_folder(options["conf-dir"]))
    if options["remove-files"]:
        done += tree.remove(options["bin-dir"])
    for line in done or ["the plugin is in no network configuration: nothing to do"]:
        log.info(line)
    if not options["remove-files"] and tree.installed(options["bin-dir"]):
        log.info(
            f"the plugin's files stay in {options['bin-dir']}: a runtime calls them when it removes "
            "pods that they were called for; --remove-files removes them"
        )
    return 0


def status(context: Context) -> int:
    """cni status: print what is not as it should be. Exit code 3 if anything is."""
    node = _node(context)
    try:
        found = node.missing()
    except KernelError as error:
        found = [error.cause]
    if context.options["json"]:
        import json

        streams.write(f"{json.dumps({'in_place': not found, 'problems': found}, indent=2)}\n")
    else:
        lines = found or [f"in place: {tree.installed(node.bin_dir)}"]
        streams.write("".join(f"{line}\n" for line in [*lines, *_notes(node)]))
    return FOUND if found else 0


def repair(context: Context) -> int:
    """cni repair: repair the pods that are there; with --watch those that come, until SIGTERM."""
    options = context.options
    counts, ending = Counts(), _Ending()
    repairer = _repairer(context, options["action"], counts)
    if not options["watch"]:
        repairer.look()
        log.info(f"pods repaired: {counts.done}, failed: {counts.failed}")
        return 1 if counts.failed else 0
    if options["listen"]:
        serve.start(options["listen"], serve.Answers(lambda: _repairs(counts), lambda: ""))
    _repair_until(repairer, ending)
    return 0


# --- the node -----------------------------------------------------------------------------------


def _node(context: Context) -> Node:
    options = context.options
    entry = _entry(options["plugin-config"])
    _folder(options["conf-dir"])
    return Node(options["conf-dir"], options["bin-dir"], options["mode"], entry, options.get("launcher", ""))


def _entry(path: str) -> dict[str, object]:
    """Return the plugin's entry for a file of --plugin-config, or without one. Raises SettingsError."""
    return configuration.entry(_keys(path) if path else {})


def _keys(path: str) -> dict[str, object]:
    """Return the mapping in a file, YAML or JSON. Raises SettingsError if it is none."""
    import yaml

    try:
        found = yaml.safe_load(text_of_file(path, "--plugin-config"))
    except yaml.YAMLError as error:
        raise SettingsError(
            [f"--plugin-config: {path!r} cannot be read: {' '.join(str(error).split())}"]
        ) from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise SettingsError([f"--plugin-config: {path!r} is not a mapping of keys to values"])
    return {str(key): value for key, value in found.items()}


def _folder(path: str) -> Folder:
    if not os.path.isdir(path):
        raise KernelError(
            f"--conf-dir: {path} is no folder", "name the one that the node's container runtime reads"
        )
    return Folder(path)


def _notes(node: Node) -> list[str]:
    """Return what does not keep the plugin from being in place, but may surprise."""
    names = Folder(node.conf_dir).names(".json")
    return [
        f"note: {os.path.join(node.conf_dir, name)}: containerd reads *.json too, in the order of names"
        for name in names
    ]


class _Ending:
    """SIGTERM or Ctrl-C: `wake` can be read from then on."""

    def __init__(self) -> None:
        gc.enable()  # this process stays
        self._come = threading.Event()
        self.wake, self._write = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._come.set()
        with suppress(OSError):
            os.write(self._write, b"\0")

    def has_come(self) -> bool:
        """Tell whether to end."""
        return self._come.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for the end; tell whether it has come."""
        return self._come.wait(seconds)


# --- repair -------------------------------------------------------------------------------------


def _repairer(context: Context, action: Any, counts: Counts) -> Repairer:
    options = context.options
    key, equals, value = options["label"].partition("=")
    if not (key and equals and value):
        raise SettingsError([f"--label: {options['label']!r} is no label: use KEY=VALUE"])
    node = options["node"] or os.environ.get("NODE_NAME", "")
    asked = Asked(action, node, options["label"], options["kubeconfig"])
    own = configuration.read(_entry(options["plugin-config"]))
    return Repairer(asked, log, counts, lambda pod, document: write_rules(pod, document, own, log))


def _repair_until(repairer: Repairer, ending: _Ending) -> None:
    """List and watch, again and again. What the API does not answer is said once until it changes."""
    problem = version = ""
    while not ending.has_come():
        try:
            version = repairer.go_on(version)
            problem = ""
        except KernelError as error:
            if error.cause != problem:
                log.warn(str(error))
            problem, version = error.cause, ""
            ending.wait(_PAUSE)


# --- metrics ------------------------------------------------------------------------------------


def _serve(address: str, node: Node, state: State, counts: Counts) -> None:
    if not address:
        return
    read = configuration.read(node.entry)

    def text() -> str:
        in_place = int(not state.problem)
        return (
            metrics.text(read.metrics_file)
            + _metric("in_place", "gauge", "Whether the plugin is on the node as it should be.", in_place)
            + _metric("put_back_total", "counter", "How often it had to be put in place.", state.put_back)
            + _repairs(counts)
        )

    serve.start(address, serve.Answers(text, lambda: state.problem))


def _repairs(counts: Counts) -> str:
    name, help = (
        "istio_iptables_cni_repairs_total",
        "Pods that started without their rules, by what came of them.",
    )
    lines = [f'{name}{{result="done"}} {counts.done}', f'{name}{{result="failed"}} {counts.failed}']
    return "".join(f"{line}\n" for line in (f"# HELP {name} {help}", f"# TYPE {name} counter", *lines))


def _metric(name: str, kind: str, help: str, value: int) -> str:
    full = f"istio_iptables_cni_{name}"
    return f"# HELP {full} {help}\n# TYPE {full} {kind}\n{full} {value}\n"

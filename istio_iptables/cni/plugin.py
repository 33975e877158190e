"""plugin: one call of the plugin, from the environment to the answer.

A call fails closed: a pod whose rules could not be made, or of which it is not known whether it needs any, is
not started. What a call of ADD does is atomic: the rules of all tables, or those that were there before.
"""

from __future__ import annotations

import os
import sys
import time

from ..errors import Busy, KernelError, SettingsError
from ..settings.resolve import parse
from ..startup.record import Record
from . import protocol
from .configuration import NO_NAMES, read, readable_path
from .decision import Skip, decide
from .names import MAX_CONFIGURATION, METRICS_FILE, VERSIONS
from .pod import handed_over, identity, of_annotations, why_not_handed_over
from .protocol import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .configuration import Node
    from .log import Log
    from .pod import KnownPod
    from .protocol import Request


def run(environ: Mapping[str, str], log: Log) -> int:
    """Answer a call on standard output, and return the exit code: 0, or 1 with an error as the answer."""
    version, status = VERSIONS[-1], 0
    try:
        command = protocol.command_of(environ)
        document = protocol.decode(_standard_input())
        version = document.version
        if command is protocol.VERSION:
            answer = protocol.versions_text(document)
        else:
            answer = _answer(protocol.request(command, environ, document), log)
    except CniError as error:
        log.error(str(error))
        answer, status = protocol.error_text(error, version), 1
    return status if _is_written(answer, log) else 1


def _standard_input() -> bytes:
    """Return the configuration; a call of VERSION may have none."""
    found = b"" if sys.stdin is None else sys.stdin.buffer.read(MAX_CONFIGURATION + 1)
    return found if found.strip() else b"{}"


def _is_written(answer: str, log: Log) -> bool:
    """Write the answer, and tell whether that could be done: the runtime may have ended meanwhile."""
    try:
        sys.stdout.buffer.write(answer.encode())
        sys.stdout.flush()
    except OSError as error:
        log.error(f"the answer cannot be written: {error.strerror}")
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # nothing is flushed at the exit
        return False
    return True


def _answer(request: Request, log: Log) -> str:
    """Do what is asked and return the answer, nothing if a command has none. Raises CniError."""
    who = identity(request)
    log.name(f"{request.command.name} {who}" if who.name else request.command.name)
    if request.command is protocol.DEL or request.command is protocol.GC:
        _as_far_as_possible(request, log)
        return ""
    begun = time.monotonic()
    metrics_file = readable_path(request.document.get("metrics_file"), METRICS_FILE)
    try:
        node = _node(request, log)
        done = _COMMANDS[request.command.name](request, node, log)
    except Exception as error:
        found = _for_the_runtime(error, log)
        if request.command is protocol.ADD:
            _count(metrics_file, "failed", str(found.code), begun, log)
        raise found from error
    if request.command is protocol.ADD:
        _count(metrics_file, "skipped" if done.skipped else "captured", done.skipped, begun, log)
    return done.answer


def _node(request: Request, log: Log) -> Node:
    """Return the configuration of the node. Its mistakes are logged where it says, if that can be read."""
    log.append_to(readable_path(request.document.get("log_file"), ""))
    node = read(request.document.values())
    operation = parse(node.given, NO_NAMES).operation()
    log.configure(operation.log_levels, as_json=operation.log_as_json)
    return node


def _for_the_runtime(error: Exception, log: Log) -> CniError:
    """Return an error with the code that tells a runtime what kind it is of."""
    if isinstance(error, CniError):
        return error
    if isinstance(error, SettingsError):
        return CniError(
            protocol.BAD_CONFIGURATION, "the configuration of the plugin cannot be used", str(error)
        )
    if isinstance(error, Busy):
        return CniError(protocol.TRY_AGAIN, error.cause, error.remedy)
    if isinstance(error, KernelError):
        return CniError(protocol.FAILED, error.cause, error.remedy)
    if isinstance(error, OSError):
        return CniError(protocol.FAILED, str(error))
    import traceback

    log.debug("".join(traceback.format_exception(error)))
    what = " ".join(f"{type(error).__name__} {error}".split())
    return CniError(protocol.UNEXPECTED, f"unexpected {what}", "bug in istio-iptables: please report it")


def _count(path: str, result: str, label: str, begun: float, log: Log) -> None:
    """Count a call, if its configuration names a file for that. What cannot be counted is no failure."""
    if not path:
        return
    from . import metrics

    why_not = metrics.count(path, metrics.Outcome(result, label, time.monotonic() - begun))
    if why_not:
        log.debug(f"not counted: {why_not}")


# --- the commands ---------------------------------------------------------------------------


class _Done(Record):
    """What a command has to answer, nothing for most of them, and why a pod gets no rules, if so."""

    answer: str = ""
    skipped: str = ""


def _look_up(request: Request, node: Node) -> KnownPod:
    """Return what is known of the pod: from the runtime, else from the API. Raises CniError."""
    who = identity(request)
    annotations = handed_over(request.document)
    if annotations is not None:
        return of_annotations(who, annotations)
    if not node.kubeconfig:
        raise why_not_handed_over(request.document)
    from .api_server import ask

    return ask(who, node)


def _add(request: Request, node: Node, log: Log) -> _Done:
    """Make the rules, and answer with the result of the plugins before this one."""
    answer = protocol.result_text(request.document)
    found = decide(identity(request), node, lambda: _look_up(request, node))
    if isinstance(found, Skip):
        log.info(f"no rules: {found.why} ({found.reason})")
        return _Done(answer, found.reason)
    from . import rules

    parsed = rules.settings(node, found)
    rules.enter_namespace(request.namespace)
    rules.put_in_place(parsed, log)
    return _Done(answer)


def _check(request: Request, node: Node, log: Log) -> _Done:
    """Raise CniError unless what ADD made is in place."""
    found = decide(identity(request), node, lambda: _look_up(request, node))
    if isinstance(found, Skip):
        log.info(f"nothing to check: {found.why} ({found.reason})")
        return _Done()
    from . import rules

    parsed = rules.settings(node, found)
    rules.enter_namespace(request.namespace)
    rules.require_in_place(parsed, log)
    log.info("the rules are in place")
    return _Done()


def _status(_: Request, node: Node, __: Log) -> _Done:
    """Raise CniError if rules could not be written on this node."""
    from .status import require_available

    require_available(node)
    return _Done()


_COMMANDS = {"ADD": _add, "CHECK": _check, "STATUS": _status}


def _as_far_as_possible(request: Request, log: Log) -> None:
    """Do DEL or GC. Both succeed always: a pod must be able to go whatever became of its node.

    GC has nothing to do, since the plugin keeps nothing outside a pod's network namespace.
    """
    try:
        node = _node(request, log)
        if request.command is protocol.DEL:
            _delete(request, node, log)
    except Exception as error:
        log.warn(f"not done: {_for_the_runtime(error, log)}")


def _delete(request: Request, node: Node, log: Log) -> None:
    """Remove the rules of a pod that got some, if its network namespace is still there.

    The API is not asked: without annotations it is not known whose the rules are, and they stay.
    """
    annotations = handed_over(request.document)
    if annotations is None or not request.namespace or not os.path.exists(request.namespace):
        return
    known = of_annotations(identity(request), annotations)
    found = decide(identity(request), node, lambda: known)
    if isinstance(found, Skip):
        return
    from . import rules

    parsed = rules.settings(node, found)
    rules.enter_namespace(request.namespace)
    rules.take_away(parsed, log)

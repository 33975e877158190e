"""rules: the rules of a pod, in its network namespace: made, compared, taken away."""

from __future__ import annotations

import os

from ..errors import SettingsError
from ..kernel.machine import Machine
from ..kernel.namespace import enter
from ..kernel.this_machine import ThisMachine
from ..pod import read_settings
from ..policy import build
from ..rules.model import Ruleset
from ..settings.declared import BY_NAME
from ..settings.resolve import parse, resolve
from ..settings.texts import Given
from .configuration import NO_NAMES
from .protocol import (
    BAD_CONFIGURATION,
    BAD_ENVIRONMENT,
    DIFFERS,
    NAMESPACE,
    NO_CONTAINER,
    CniError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..kernel.prepared import Prepared
    from ..settings.resolve import Parsed
    from .configuration import Node
    from .log import Log
    from .pod import KnownPod

_CNI_MODE = Given(BY_NAME["cni-mode"], "true", "the CNI plugin")
_OWN_NAMESPACE = "/proc/self/ns/net"


def settings(node: Node, known: KnownPod) -> Parsed:
    """Return the settings of a pod. Raises CniError with all that is wrong with them."""
    found = read_settings(known.pod, [_CNI_MODE], node.given)
    try:
        return parse(found.given, NO_NAMES, [*found.refusals, *found.mistakes])
    except SettingsError as error:
        raise CniError(BAD_CONFIGURATION, "the settings of the pod cannot be used", str(error)) from error


def enter_namespace(path: str) -> None:
    """Enter a pod's network namespace for good.

    Raises CniError if it is not there, or if it is the node's own; KernelError if it may not be entered.
    """
    try:
        if os.path.samefile(path, _OWN_NAMESPACE):
            raise CniError(
                BAD_ENVIRONMENT,
                f"{NAMESPACE}: {path} is the network namespace of the node",
                "its traffic must not be redirected to a sidecar",
            )
    except (OSError, ValueError):
        pass  # `enter` says why
    try:
        enter(path, NAMESPACE)
    except SettingsError as error:
        raise CniError(NO_CONTAINER, "the network namespace is not there", str(error)) from error


def put_in_place(parsed: Parsed, log: Log) -> None:
    """Put the rules of these settings into the present network namespace, all of them or none.

    Raises KernelError, and SettingsError for what the backend cannot load; then it is as it was.
    """
    wanted = _wanted(parsed, log)
    with _machine(parsed, log, writing=True) as machine:
        prepared = machine.plan(wanted)
        prepared.require_no_conflict()
        log.info(f"backend {prepared.choice.backend}: {prepared.choice.why}")
        _warn_of_neighbours(prepared, log)
        if not prepared.plan.actions:
            log.info("the rules are in place already: nothing to do")
            return
        for line in prepared.taken_over:
            log.info(line)
        prepared.apply()
    log.info("done: the rules are in place")


def require_in_place(parsed: Parsed, log: Log) -> None:
    """Raise CniError with the difference unless the rules of these settings are in place."""
    wanted = _wanted(parsed, log)
    with _machine(parsed, log, writing=False) as machine:
        prepared = machine.plan(wanted)
        if prepared.conflicts:
            from ..formats.notices import conflict

            difference = ": ".join(conflict(prepared.conflicts))
        elif prepared.differences:
            from ..formats.difference import text

            difference = text(prepared.plan)
        else:
            return
    raise CniError(DIFFERS, "the rules are not in place as they should be (- in place, + wanted)", difference)


def take_away(parsed: Parsed, log: Log) -> None:
    """Remove everything of istio-iptables from the present network namespace. Raises KernelError."""
    with _machine(parsed, log, writing=True) as machine:
        prepared = machine.plan(Ruleset())
        if prepared.conflicts:
            log.info("nothing is removed: what is in place there is not of istio-iptables")
        elif prepared.plan.actions:
            prepared.apply()
            log.info("done: the rules are removed")


def _wanted(parsed: Parsed, log: Log) -> Ruleset:
    config, warnings = resolve(parsed, ThisMachine())
    for given in parsed.changed:
        log.info(f"setting {given.setting.name} = {given.text!r} ({given.origin})")
    for warning in warnings:
        log.warn(warning)
    return build(config)


def _machine(parsed: Parsed, log: Log, *, writing: bool) -> Machine:
    operation = parsed.operation()
    return Machine(
        forced_variant=operation.forced_variant,
        native_nftables=operation.native_nftables,
        cni_mode=True,
        writing=writing,
        on_wait=log.info,
    )


def _warn_of_neighbours(prepared: Prepared, log: Log) -> None:
    found = prepared.neighbours
    if found:
        from ..formats.notices import neighbours

        for text in neighbours(found):
            log.warn(text)

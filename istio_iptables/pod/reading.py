"""Reading: the settings that a pod means, each with where in the pod it stands.

From the weakest: the annotations, the proxy's container, the variables and then the arguments of a container
istio-init that is there already. The texts are checked where all settings are (resolve.parse); what only a
pod can get wrong is a mistake here.
"""

from __future__ import annotations

from ..rules.istio import AGENT_PROGRAM, PROGRAM
from ..settings import go_flags
from ..settings.declared import BY_NAME, Given, shown
from ..settings.parsers import members
from ..settings.resolve import from_environment
from ..startup.record import Record
from .annotations import ANNOTATIONS, BY_SETTING, INIT, PROXY, PROXY_ID, VARIABLES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .annotations import Annotation
    from .manifest import Container, Pod

MODE = BY_SETTING["istio-inbound-interception-mode"]
#: The interception mode that Istio knows and that means no rules at all.
NO_INTERCEPTION = "NONE"


class Reading(Record):
    """What a pod says, the strongest last, and in one line each the mistakes in it.

    `refusals` say why there must be no rules for this pod at all, however right the rest is.
    """

    given: tuple[Given, ...]
    mistakes: tuple[str, ...]
    refusals: tuple[str, ...]


def read_settings(pod: Pod) -> Reading:
    """Return the settings that a pod means."""
    mistakes = [f"{pod.label}: {problem}" for problem in pod.problems]
    given: list[Given] = []
    for annotation in ANNOTATIONS:
        given += _from_annotation(pod, annotation)
    given += _from_proxy(pod, mistakes)
    given += _from_init(pod, mistakes)
    return Reading(tuple(given), tuple(mistakes), tuple(_refusals(pod)))


def _refusals(pod: Pod) -> Iterator[str]:
    if pod.host_network:
        yield (
            f"{pod.label}: hostNetwork: its network namespace is the node's own, whose traffic must not be "
            "redirected to a sidecar: no rules for this pod"
        )
    if captures_nothing(pod):
        yield (
            f"{origin_of(pod, MODE.name)}: {NO_INTERCEPTION!r} means that nothing is captured: "
            "no rules for this pod"
        )


def captures_nothing(pod: Pod) -> bool:
    """Tell whether the pod says that it wants no rules."""
    return pod.annotations.get(MODE.name) == NO_INTERCEPTION


def origin_of(pod: Pod, name: str) -> str:
    """Return an annotation of a pod in the words of a message."""
    return f"{pod.label}: annotation {name}"


def written(pod: Pod, annotation: Annotation) -> str:
    """Return the name under which an annotation stands in the pod, nothing if it does not."""
    return next((name for name in annotation.names if name in pod.annotations), "")


def _from_annotation(pod: Pod, annotation: Annotation) -> Iterator[Given]:
    name = written(pod, annotation)
    text = str(pod.annotations[name]) if name else ""
    if annotation is MODE and captures_nothing(pod):
        return
    if annotation.always:
        there = members(text)
        text = ",".join([*filter(None, [text]), *(port for port in annotation.always if port not in there)])
    if name or annotation.always:
        origin = origin_of(pod, name) if name else f"{pod.label}: the sidecar's own ports"
        yield Given(annotation.setting, text, origin)


def _from_proxy(pod: Pod, mistakes: list[str]) -> Iterator[Given]:
    """Return the users of the proxy, and the switches among its variables.

    For TPROXY the proxy runs as UID 0, to be allowed to; -u stays 1337 then, whose rules come before those of
    the group by which the proxy is told. A proxy that is not in the manifest will be injected as 1337.
    """
    proxy = pod.container(PROXY)
    where = f"{pod.label}: container {PROXY}"
    identity = ("", "") if proxy is None else (proxy.identity.user, proxy.identity.group)
    fields = (("proxy-uid", "runAsUser"), ("proxy-gid", "runAsGroup"))
    for (setting, field), text in zip(fields, identity, strict=True):
        origin = f"{where}: securityContext.{field}"
        if text and not (text.isascii() and text.isdigit()):
            mistakes.append(f"{origin}: {str(text)!r} is not a number")
        elif text.lstrip("0"):
            yield Given(BY_NAME[setting], str(text), origin)
        else:
            yield Given(BY_NAME[setting], PROXY_ID, f"{pod.label}: the proxy's user and group in Istio")
    for variable, settings in VARIABLES.items():
        if proxy is None or variable not in proxy.variables:
            continue
        text_or_none = proxy.variables[variable]
        origin = f"{where}: variable {variable}"
        if text_or_none is None:
            mistakes.append(_not_in_the_manifest(origin))
            continue
        yield from (Given(setting, text_or_none, origin) for setting in settings)


def _not_in_the_manifest(origin: str) -> str:
    return f"{origin}: its value is not in the manifest (valueFrom): write it there"


#: Programs that a container's command may name and that take these arguments.
_PROGRAMS = frozenset({PROGRAM, AGENT_PROGRAM})


def arguments(container: Container) -> tuple[str, ...] | None:
    """Return the command line that a container gives to istio-iptables, None if it runs something else."""
    if not container.has_command:
        return container.command_line
    program = container.command_line[0].rpartition("/")[2]
    return container.command_line[1:] if program in _PROGRAMS else None


def _from_init(pod: Pod, mistakes: list[str]) -> Iterator[Given]:
    """Return what a container istio-init that is there already is called with: it knows best."""
    container = pod.container(INIT)
    if container is None:
        return
    where = f"{pod.label}: container {INIT}"
    words = arguments(container)
    if words is None:
        mistakes.append(f"{where}: command: {container.command_line[0]!r} is not {PROGRAM}: cannot be read")
        return
    own = {name: text for name, text in container.variables.items() if text is not None}
    mistakes += [
        _not_in_the_manifest(f"{where}: variable {name}")
        for name, text in container.variables.items()
        if text is None and from_environment({name: ""})
    ]
    invocation = go_flags.read_arguments(words)
    mistakes += [f"{where}: {mistake}" for mistake in invocation.mistakes]
    mistakes += [f"{where}: {shown(flag)}: sets up no rules" for flag in invocation.meta]
    mistakes += [
        f"{where}: {source.origin}: {source.text!r} is a file in the container, which is not in the manifest"
        for source in invocation.sources
    ]
    if invocation.command not in ("", "apply"):
        mistakes.append(f"{where}: {invocation.command!r}: a command that sets up no rules")
    for given in (*from_environment(own), *invocation.settings):
        yield given.replace(origin=f"{where}: {given.origin}")

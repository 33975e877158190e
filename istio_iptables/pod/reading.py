"""reading: the settings of a pod, each with the place in the pod that it comes from.

From the weakest: the annotations, the proxy's container, then the variables and the arguments of an existing
container istio-init. Values are checked with all other settings (resolve.parse); only mistakes that are
possible in a pod alone are found here.
"""

from __future__ import annotations

from ..rules.istio import AGENT_PROGRAM, PROGRAM
from ..settings import go_flags
from ..settings.declared import BY_NAME, BY_VARIABLE, Given, shown
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
#: The interception mode of Istio that means no rules at all.
NO_INTERCEPTION = "NONE"


class Reading(Record):
    """The settings of a pod, the strongest last, and the mistakes in it, one line each.

    `refusals` say why this pod must not get rules at all, even if all settings are valid.
    """

    given: tuple[Given, ...]
    mistakes: tuple[str, ...]
    refusals: tuple[str, ...]


def read_settings(pod: Pod) -> Reading:
    """Return the settings of a pod."""
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
            f"{pod.label}: hostNetwork: it uses the network namespace of the node, whose traffic must not be "
            "redirected to a sidecar: no rules for this pod"
        )
    if captures_nothing(pod):
        yield (
            f"{origin_of(pod, MODE.name)}: {NO_INTERCEPTION!r} means that nothing is captured: "
            "no rules for this pod"
        )


def captures_nothing(pod: Pod) -> bool:
    """Tell whether the pod asks for no rules."""
    return pod.annotations.get(MODE.name) == NO_INTERCEPTION


def origin_of(pod: Pod, name: str) -> str:
    """Return the name of an annotation of a pod in messages."""
    return f"{pod.label}: annotation {name}"


def written(pod: Pod, annotation: Annotation) -> str:
    """Return the name that the pod uses for an annotation, an empty string if the pod does not have it."""
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
    """Return the user and group of the proxy, and the switches among its variables.

    With TPROXY the proxy has to run as UID 0. Then -u stays 1337, and the rules recognize the proxy by its
    group. A proxy that is not in the manifest will be injected as user 1337.
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
    return f"{origin}: its value is not in the manifest (valueFrom): write the value there"


#: Programs that a container's command may name and that take these arguments.
_PROGRAMS = frozenset({PROGRAM, AGENT_PROGRAM})


def arguments(container: Container) -> tuple[str, ...] | None:
    """Return the command line that a container gives to istio-iptables, None if it runs something else."""
    if not container.has_command:
        return container.command_line
    program = container.command_line[0].rpartition("/")[2]
    return container.command_line[1:] if program in _PROGRAMS else None


def _from_init(pod: Pod, mistakes: list[str]) -> Iterator[Given]:
    """Return the settings of an existing container istio-init: they are what the pod will apply."""
    container = pod.container(INIT)
    if container is None:
        return
    where = f"{pod.label}: container {INIT}"
    given_arguments = arguments(container)
    if given_arguments is None:
        mistakes.append(f"{where}: command: {container.command_line[0]!r} is not {PROGRAM}: cannot be read")
        return
    own = {name: text for name, text in container.variables.items() if text is not None}
    mistakes += [
        _not_in_the_manifest(f"{where}: variable {name}")
        for name, text in container.variables.items()
        if text is None and name in BY_VARIABLE
    ]
    invocation = go_flags.read_arguments(given_arguments)
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

"""reading: the settings of a pod, each with the place in the pod that it comes from.

From the weakest: the annotations, the proxy's container, then the variables and the arguments of an existing
container istio-init. Values are checked with all other settings (resolve.parse); only mistakes that are
possible in a pod alone are found here.
"""

from __future__ import annotations

from ..rules.istio import AGENT_PROGRAM, PROGRAM
from ..settings.declared import BY_NAME, BY_VARIABLE
from ..settings.parsers import LARGEST_PORT, TRUE, members
from ..settings.resolve import from_environment
from ..settings.texts import Given, quoted, shown
from ..startup.record import Record
from .annotations import (
    ANNOTATIONS,
    INIT,
    PROXY,
    PROXY_CONFIG,
    PROXY_ID,
    PROXY_METADATA,
    SIDECAR_PORTS,
    STATUS_PORT,
    VARIABLES,
    VARIABLES_OF_CNI,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .annotations import Annotation
    from .model import Container, Pod

#: The origins of settings that no one wrote.
OWN_PORTS = "the sidecar's own ports"
CNI_DEFAULT = "the default of Istio's CNI plugin"


class Reading(Record):
    """The settings of a pod, the strongest last, and the mistakes in it, one line each.

    `refusals` say why this pod must not get rules at all, even if all settings are valid.
    """

    given: tuple[Given, ...]
    mistakes: tuple[str, ...]
    refusals: tuple[str, ...]


def read_settings(pod: Pod, others: Sequence[Given] = (), defaults: Sequence[Given] = ()) -> Reading:
    """Return the settings of a pod. `others` take precedence over them, and they over `defaults`.

    With --cni-mode among `others` they are those of Istio's CNI plugin, which differ a little from those of
    Istio's init container. (An istio-init that has the flag uses it for the lock: see container.for_entry.)
    `defaults` are those of the node; the settings that are returned begin with them.
    """
    mistakes = [f"{pod.label}: {problem}" for problem in pod.problems]
    by_cni = _is_by_cni(others)
    of_node = {item.setting.name: item for item in defaults}
    given: list[Given] = list(defaults)
    for annotation in ANNOTATIONS:
        given += _from_annotation(pod, annotation, of_node.get(annotation.setting.name), by_cni=by_cni)
    if pod.annotations.get(STATUS_PORT, "") not in ("", status_port(pod)):
        problem = f"{quoted(pod.annotations[STATUS_PORT])} is not a port: use a number from 0 (none) to 65535"
        mistakes.append(f"{origin_of(pod, STATUS_PORT)}: {problem}")
    given += _from_identity(pod, of_node, mistakes)
    given += _from_variables(pod, mistakes, by_cni=by_cni)
    given += _from_init(pod, mistakes)
    return Reading(tuple(given), tuple(mistakes), tuple(_refusals(pod)))


def _is_by_cni(given: Sequence[Given]) -> bool:
    """Tell whether --cni-mode is on. A text that is not a boolean is reported when settings are parsed."""
    texts = [item.text for item in given if item.setting.name == "cni-mode"]
    return bool(texts) and texts[-1] in TRUE


def _refusals(pod: Pod) -> Iterator[str]:
    if pod.host_network:
        yield (
            f"{pod.label}: hostNetwork: it uses the network namespace of the node, whose traffic must not be "
            "redirected to a sidecar: no rules for this pod"
        )


def origin_of(pod: Pod, name: str) -> str:
    """Return the name of an annotation of a pod in messages."""
    return f"{pod.label}: annotation {name}"


def written(pod: Pod, annotation: Annotation) -> str:
    """Return the name that the pod uses for an annotation, an empty string if the pod does not have it."""
    return next((name for name in annotation.names if name in pod.annotations), "")


def status_port(pod: Pod) -> str:
    """Return the agent's port for health and metrics, "0" if there is none.

    An empty annotation counts as absent, as an empty variable of a port does; a bad value means the default.
    """
    text = pod.annotations.get(STATUS_PORT) or SIDECAR_PORTS[0]
    is_port = text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= LARGEST_PORT
    return str(text) if is_port else SIDECAR_PORTS[0]


def always_in(pod: Pod, annotation: Annotation) -> tuple[str, ...]:
    """Return the members that a list has in this pod, whatever its annotation lists."""
    if not annotation.always:
        return ()
    port = status_port(pod)
    return (*((port,) if port.strip("0") else ()), *annotation.always[1:])


def _from_annotation(
    pod: Pod, annotation: Annotation, of_node: Given | None, *, by_cni: bool
) -> Iterator[Given]:
    name = written(pod, annotation)
    text = str(pod.annotations[name]) if name else of_node.text if of_node else ""
    always = always_in(pod, annotation)
    there = members(text)
    text = ",".join([*filter(None, [text]), *(port for port in always if port not in there)])
    if name:
        yield Given(annotation.setting, text, origin_of(pod, name))
    elif of_node:
        yield of_node.replace(text=text)
    elif always:
        yield Given(annotation.setting, text, f"{pod.label}: {OWN_PORTS}")
    elif by_cni and annotation.of_cni:
        yield Given(annotation.setting, annotation.of_cni, f"{pod.label}: {CNI_DEFAULT}")


def _from_identity(pod: Pod, of_node: Mapping[str, Given], mistakes: list[str]) -> Iterator[Given]:
    """Return the user and group of the proxy: those of its own securityContext, or Istio's.

    With TPROXY the proxy has to run as UID 0. Then -u stays 1337, and the rules recognize the proxy by its
    group. A proxy that is not in the manifest will be injected as user 1337.
    """
    proxy = pod.container(PROXY)
    identity = ("", "") if proxy is None else (proxy.identity.user, proxy.identity.group)
    fields = (("proxy-uid", "runAsUser"), ("proxy-gid", "runAsGroup"))
    for (setting, field), text in zip(fields, identity, strict=True):
        origin = f"{pod.label}: container {PROXY}: securityContext.{field}"
        if text and not (text.isascii() and text.isdigit()):
            mistakes.append(f"{origin}: {quoted(text)} is not a number")
        elif text.lstrip("0"):
            yield Given(BY_NAME[setting], str(text), origin)
        elif setting not in of_node:
            yield Given(BY_NAME[setting], PROXY_ID, f"{pod.label}: the proxy's user and group in Istio")


def _from_variables(pod: Pod, mistakes: list[str], *, by_cni: bool) -> Iterator[Given]:
    """Return the switches among the proxy's variables. An empty variable is not set."""
    mistakes += [f"{origin_of(pod, PROXY_CONFIG)}: {problem}" for problem in metadata_of(pod).problems]
    for variable, setting in VARIABLES.items():
        text, origin = proxy_variable(pod, variable)
        if text is None:
            mistakes.append(_not_in_the_manifest(f"{pod.label}: {origin}"))
        elif text:
            yield Given(setting, text, f"{pod.label}: {origin}")
            if by_cni and variable in VARIABLES_OF_CNI:
                yield Given(VARIABLES_OF_CNI[variable], text, f"{pod.label}: {origin}")


def proxy_variable(pod: Pod, name: str) -> tuple[str | None, str]:
    """Return a variable of the proxy, and where it is in the pod: an empty text if it is not set.

    The proxy's container takes precedence over the annotation PROXY_CONFIG, from which the injector makes
    variables. The text is None if the container has it from elsewhere (valueFrom).
    """
    proxy = pod.container(PROXY)
    if proxy is not None and name in proxy.variables:
        return proxy.variables[name], f"container {PROXY}: variable {name}"
    return metadata_of(pod).variables.get(name, ""), f"annotation {PROXY_CONFIG}: {PROXY_METADATA}.{name}"


class Metadata(Record):
    """The variables in the annotation PROXY_CONFIG, its other keys, and what is wrong with it."""

    variables: Mapping[str, str] = {}
    others: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def metadata_of(pod: Pod) -> Metadata:
    """Return the proxyMetadata of a pod."""
    text = pod.annotations.get(PROXY_CONFIG, "")
    if not text:
        return Metadata()
    from ..settings import yaml_text  # few pods have the annotation
    from .view import View

    try:
        documents = yaml_text.read_documents(text)
    except yaml_text.Unreadable as error:
        return Metadata(problems=(f"is neither YAML nor JSON: {error}",))
    if len(documents) > 1:
        return Metadata(problems=("has several documents",))
    problems: list[str] = []
    whole = View(documents[0] if documents else None, "", problems)
    others = tuple(key for key in whole.names() if key != PROXY_METADATA)
    return Metadata(whole.at(PROXY_METADATA).texts(), others, tuple(problems))


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
    from ..settings.commands import DEFAULT_COMMAND
    from ..settings.go_flags import read_arguments

    where = f"{pod.label}: container {INIT}"
    given_arguments = arguments(container)
    if given_arguments is None:
        mistakes.append(
            f"{where}: command: {quoted(container.command_line[0])} is not {PROGRAM}: cannot be read"
        )
        return
    own = {name: text for name, text in container.variables.items() if text is not None}
    mistakes += [
        _not_in_the_manifest(f"{where}: variable {name}")
        for name, text in container.variables.items()
        if text is None and name in BY_VARIABLE
    ]
    invocation = read_arguments(given_arguments)
    mistakes += [f"{where}: {mistake}" for mistake in invocation.mistakes]
    mistakes += [f"{where}: {shown(flag)}: sets up no rules" for flag in invocation.meta]
    mistakes += [
        f"{where}: {source.origin}: {quoted(source.text)} is a file in the container, which "
        "is not in the manifest"
        for source in invocation.sources
    ]
    if invocation.command not in ("", DEFAULT_COMMAND):
        mistakes.append(f"{where}: {quoted(invocation.command)}: a command that sets up no rules")
    for given in (*from_environment(own), *invocation.settings):
        yield given.replace(origin=f"{where}: {given.origin}")

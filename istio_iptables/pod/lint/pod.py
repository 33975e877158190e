"""pod: checks of annotations apart from their values, and of the pod around them."""

from __future__ import annotations

from ...rules import istio
from ...settings.declared import OWNER_GROUPS, OWNER_GROUPS_EXCLUDED
from ...settings.parsers import BadValue
from ...settings.texts import quoted
from ...settings.yaml_text import Unquoted
from ..annotations import (
    ANNOTATIONS,
    BY_SETTING,
    INIT,
    INJECT,
    MODE,
    NAMES,
    PROXY,
    PROXY_CONFIG,
    PROXY_METADATA,
    STATUS_PORT,
    TRAFFIC,
    VALIDATION,
)
from ..reading import always_in, metadata_of, origin_of, written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ...settings.declared import Setting
    from ..model import Container
    from .findings import Finding
    from .subject import Check, Subject

# --- annotations ----------------------------------------------------------------------------


def mistakes(subject: Subject) -> Iterator[Finding]:
    """Values that cannot be read."""
    for mistake in subject.mistakes:
        where, _, problem = mistake.removeprefix(f"{subject.pod.label}: ").partition(": ")
        yield subject.finding("invalid", where, problem, "correct it: no rules are made with this value")


def unquoted(subject: Subject) -> Iterator[Finding]:
    """Scalars that Kubernetes does not take for strings."""
    pod = subject.pod
    texts: dict[str, str | None] = {
        f"annotation {name}": pod.annotations[name]
        for name in (*NAMES, INJECT, STATUS_PORT)
        if name in pod.annotations
    }
    if INJECT in pod.labels:
        texts[f"label {INJECT}"] = pod.labels[INJECT]
    for container in pod.containers:
        if container.name in (PROXY, INIT):
            where = f"container {container.name}: variable"
            texts |= {f"{where} {name}": text for name, text in container.variables.items()}
    for where, text in texts.items():
        if isinstance(text, Unquoted) and text.read_as:
            problem = f"{text} without quotes is {text.read_as}: Kubernetes rejects the pod"
            yield subject.finding("unquoted", where, problem, f'write "{text}"')
    for name, text in metadata_of(pod).variables.items():
        if isinstance(text, Unquoted) and text.read_as:
            where = f"annotation {PROXY_CONFIG}: {PROXY_METADATA}.{name}"
            problem = f"{text} without quotes is {text.read_as}: Istio's injector rejects it"
            yield subject.finding("unquoted", where, problem, f'write "{text}"')


#: How similar (difflib) the last part of a key must be to be taken for a typing error. Istio has other
#: annotations under the same prefixes, and none is as similar (tests/unit/test_pod_lint.py lists them).
_LIKE = 0.8


def unknown(subject: Subject) -> Iterator[Finding]:
    """Keys that are not an annotation of Istio but are similar to one, or have the prefix of these."""
    for key in subject.pod.annotations:
        prefix = key.rpartition("/")[0].lower()
        if key in NAMES or (prefix and not prefix.endswith("istio.io")):
            continue
        near = _nearest(key)
        if near:
            problem = "there is no such annotation, and nothing reads it"
            yield subject.finding("unknown", f"annotation {key}", problem, f"did you mean {near}?")
        elif key.lower().startswith(TRAFFIC):
            problem = "there is no such annotation, and nothing reads it"
            known = ", ".join(name.removeprefix(TRAFFIC) for name in NAMES if name.startswith(TRAFFIC))
            yield subject.finding(
                "unknown", f"annotation {key}", problem, f"leave it out (Istio has {known})"
            )


def _nearest(key: str) -> str:
    """Return the annotation whose last part is most similar to that of a key, ignoring case."""
    import difflib

    ends = {name.rpartition("/")[2].lower(): annotation.name for name, annotation in NAMES.items()}
    close = difflib.get_close_matches(key.rpartition("/")[2].lower(), ends, n=1, cutoff=_LIKE)
    return ends[close[0]] if close else ""


def misplaced(subject: Subject) -> Iterator[Finding]:
    """Annotations on a workload rather than on its pods, and labels that should be annotations."""
    pod = subject.pod
    for name in NAMES:
        if name in pod.workload_annotations and name not in pod.annotations:
            where = f"annotation {name} of the {pod.kind} itself"
            problem = "has no effect there: only the annotations of the pod are read"
            yield subject.finding(
                "misplaced", where, problem, "move it to metadata.annotations of the pod template"
            )
        if name in pod.labels:
            problem = "has no effect: Istio reads an annotation of that name, not a label"
            yield subject.finding("misplaced", f"label {name}", problem, "make it an annotation")


def deprecated(subject: Subject) -> Iterator[Finding]:
    """Old names."""
    for annotation in ANNOTATIONS:
        old = annotation.deprecated
        if not old or old not in subject.pod.annotations:
            continue
        if annotation.name in subject.pod.annotations:
            problem = f"has no effect: {annotation.name} is there too and takes precedence"
            yield subject.finding("deprecated", f"annotation {old}", problem, "leave it out")
        else:
            problem = "is the old name of this annotation"
            yield subject.finding("deprecated", f"annotation {old}", problem, f"use {annotation.name}")


def overridden(subject: Subject) -> Iterator[Finding]:
    """Annotations that the arguments of istio-init contradict, since they changed after it was injected."""
    for annotation in ANNOTATIONS:
        name, given = written(subject.pod, annotation), subject.given.get(annotation.setting.name)
        if not name or given is None or given.origin == origin_of(subject.pod, name):
            continue
        text = str(subject.pod.annotations[name])
        expected = ",".join([text, *always_in(subject.pod, annotation)]).lstrip(",")
        try:
            wanted = _comparable(subject, annotation.setting, expected)
            found = _comparable(subject, given.setting, given.text)
        except BadValue:
            continue
        if wanted != found:
            problem = f"is overridden: {subject.place(given)} sets {quoted(given.text)}"
            remedy = "make the two equal, or have the sidecar injected again"
            yield subject.finding("overridden", f"annotation {name}", problem, remedy)


def _comparable(subject: Subject, setting: Setting, text: str) -> object:
    value = setting.parse(text, subject.names)
    return frozenset(value) if isinstance(value, tuple) else value


def ignored(subject: Subject) -> Iterator[Finding]:
    """Arguments and variables of istio-init that are accepted and change nothing."""
    for given in subject.given.values():
        if given.setting.ignored and given.origin != subject.place(given):
            yield subject.finding("no-effect", subject.place(given), given.setting.ignored, "leave it out")


# --- whether there are rules at all ---------------------------------------------------------


def host_network(subject: Subject) -> Iterator[Finding]:
    """Pods in the node's network namespace."""
    if not subject.pod.host_network:
        return
    if subject.annotated or any(c.name in (PROXY, INIT) for c in subject.pod.containers):
        problem = "it has the node's network namespace: rules for a sidecar would redirect the whole node"
        remedy = "remove hostNetwork, or the sidecar and its annotations (Istio injects none into such pods)"
        yield subject.finding("host-network", "spec.hostNetwork", problem, remedy)


def no_sidecar(subject: Subject) -> Iterator[Finding]:
    """Annotations of a pod that gets no sidecar, or captures nothing."""
    pod = subject.pod
    label = pod.labels.get(INJECT)
    inject = pod.annotations.get(INJECT) if label is None else label
    off = inject is not None and inject.lower() in ("false", "no", "n", "off")
    mode = BY_SETTING["istio-inbound-interception-mode"].name
    for name in subject.annotated:
        if off and pod.container(PROXY) is None:
            problem = f"has no effect: {INJECT} is {quoted(inject)}, so the pod gets no sidecar"
            yield subject.finding("no-sidecar", f"annotation {name}", problem, "remove one of the two")
        elif subject.captures_nothing and name != mode:
            problem = f"has no effect: {mode} is 'NONE', so nothing is captured"
            yield subject.finding("no-sidecar", f"annotation {name}", problem, "remove one of the two")


#: Keys of the annotation PROXY_CONFIG that the injector makes arguments of istio-init from.
_ARGUMENTS_FROM_CONFIG: Mapping[str, tuple[str, str]] = {
    "interceptionMode": (MODE.name, BY_SETTING[MODE.name].name),
    "statusPort": ("istio-local-exclude-ports", STATUS_PORT),
}


def proxy_config(subject: Subject) -> Iterator[Finding]:
    """Settings in proxy.istio.io/config that are no variables, which only the injector reads."""
    if subject.pod.container(PROXY) is not None or subject.pod.container(INIT) is not None:
        return
    for key in metadata_of(subject.pod).others:
        setting, annotation = _ARGUMENTS_FROM_CONFIG.get(key, ("", ""))
        if not setting or annotation in subject.pod.annotations or not subject.is_by_default(setting):
            continue
        problem = f"{key} is not read from this annotation: the injector makes an argument of {INIT} from it"
        remedy = f"check the pod as the injector made it, or set the annotation {annotation} too"
        yield subject.finding("no-sidecar", f"annotation {PROXY_CONFIG}", problem, remedy)


# --- users and privileges -------------------------------------------------------------------


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 else None


def users(subject: Subject) -> Iterator[Finding]:
    """Applications that the rules take for the proxy, and a proxy that they do not recognize."""
    uids, gids = _proxy_ids(subject)
    for container in subject.pod.containers:
        if container.name in (PROXY, INIT) or (container.init and not container.sidecar):
            continue
        for field, text, ids in (
            ("runAsUser", container.identity.user, uids),
            ("runAsGroup", container.identity.group, gids),
        ):
            if _number(text) in ids:
                where = f"container {container.name}: securityContext.{field}"
                problem = f"{text} is the proxy's own: traffic that the container sends is not captured"
                yield subject.finding("proxy-user", where, problem, f"set another {field}")
    proxy = subject.pod.container(PROXY)
    if proxy is None:
        return
    user, group = _number(proxy.identity.user), _number(proxy.identity.group)
    if user is not None and user not in uids and (group or 0) not in gids:
        where = f"container {PROXY}: securityContext.runAsUser"
        problem = f"{user} is not exempt, nor is its group: its traffic is redirected to itself in a loop"
        yield subject.finding(
            "proxy-user", where, problem, f"set runAsGroup to {gids[0]}, or runAsUser to {uids[0]}"
        )
    if user is None and proxy.image not in ("", _INJECTED_IMAGE):
        yield from _user_of_the_pod(subject, proxy)


#: The image of a proxy that the injector completes, its securityContext included.
_INJECTED_IMAGE = "auto"


def _user_of_the_pod(subject: Subject, proxy: Container) -> Iterator[Finding]:
    """A proxy that no injector completes, and that Kubernetes runs as the pod's user."""
    uids, gids = _proxy_ids(subject)
    user = _number(subject.pod.identity.user)
    group = _number(proxy.identity.group or subject.pod.identity.group) or 0
    if user is None or user in uids or group in gids:
        return
    where = f"container {PROXY}: securityContext.runAsUser"
    problem = (
        f"is not set, so that it runs as the pod's user {user}, which is not exempt: its traffic is "
        "redirected to itself in a loop"
    )
    yield subject.finding("proxy-user", where, problem, f"set it to {uids[0]} for this container")


def _proxy_ids(subject: Subject) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the users and groups that the rules exempt. The default of the groups is the users' numbers."""
    uids = subject.values["proxy_uids"] or (istio.PROXY_ID,)
    return uids, subject.values["proxy_gids"] or uids


def owner_groups(subject: Subject) -> Iterator[Finding]:
    """Supplementary groups of a process, which the kernel's owner match does not see."""
    others = {_number(text) for text in subject.pod.other_groups}
    own = {_number(container.identity.group) for container in subject.pod.containers}
    for name, field in (
        (OWNER_GROUPS, "owner_groups"),
        (OWNER_GROUPS_EXCLUDED, "owner_groups_excluded"),
    ):
        groups = subject.values[field]
        for group in groups if isinstance(groups, tuple) else ():
            if group in others and group not in own:
                problem = f"{group} is an fsGroup or a supplementary group: rules match only a process's own"
                yield subject.about(name, "owner-group", problem, "use a group that is set by runAsGroup")
    yield from subject.without_effect(OWNER_GROUPS_EXCLUDED)


def tproxy(subject: Subject) -> Iterator[Finding]:
    """A proxy without the rights that TPROXY requires."""
    proxy = subject.pod.container(PROXY)
    if proxy is None or subject.values["interception_mode"] != "TPROXY":
        return
    if not _has(proxy, "NET_ADMIN"):
        where = f"container {PROXY}: securityContext.capabilities"
        problem = (
            "without NET_ADMIN the proxy cannot accept connections to other addresses, which TPROXY requires"
        )
        yield subject.finding("tproxy", where, problem, "add NET_ADMIN, or use REDIRECT")
    if _number(proxy.identity.user) != 0:
        where = f"container {PROXY}: securityContext.runAsUser"
        runs_as = proxy.identity.user or "its image's user"
        problem = f"as {runs_as} the proxy's own connections to the application come back to it with TPROXY"
        remedy = f"run it as user 0 and group {istio.PROXY_ID}, or use REDIRECT"
        yield subject.finding("tproxy", where, problem, remedy)


def _has(container: Container, capability: str) -> bool:
    named = {name.removeprefix("CAP_") for name in container.capabilities}
    return container.privileged or bool(named & {capability, "ALL"})


def init_privileges(subject: Subject) -> Iterator[Finding]:
    """An istio-init without the rights to write rules."""
    init = subject.pod.container(INIT)
    if init is None or subject.values["skip_rule_apply"] or subject.values["dry_run"]:
        return
    dropped = {name.removeprefix("CAP_") for name in init.dropped}
    missing = [] if _has(init, "NET_ADMIN") else ["NET_ADMIN"]
    # NET_RAW is in the default set of Docker and containerd, unless it is dropped.
    if not _has(init, "NET_RAW") and dropped & {"ALL", "NET_RAW"}:
        missing.append("NET_RAW")
    for capability in missing:
        where = f"container {INIT}: securityContext.capabilities"
        yield subject.finding(
            "init-privileges", where, f"without {capability} it cannot write rules", f"add {capability}"
        )
    if _number(init.identity.user) not in (0, None):
        where = f"container {INIT}: securityContext.runAsUser"
        problem = f"as user {init.identity.user} it has no capabilities and cannot write rules"
        yield subject.finding("init-privileges", where, problem, "run it as user 0")


def init_order(subject: Subject) -> Iterator[Finding]:
    """Init containers that start after traffic is captured and before the proxy runs."""
    captures = subject.values["outbound_cidrs"] != () or subject.values["outbound_ports"] != ()
    if not captures or subject.captures_nothing:
        return
    when, earlier, later = _after_capture(subject)
    uids, gids = _proxy_ids(subject)
    for container in later:
        if container.name == PROXY and container.sidecar:
            return
        if _number(container.identity.user) not in uids and _number(container.identity.group) not in gids:
            problem = f"starts after {when} and before the proxy: its connections are refused"
            remedy = f"{earlier}make {PROXY} a native sidecar before it, or run it as user {uids[0]}"
            yield subject.finding("init-order", f"container {container.name}", problem, remedy)


def _after_capture(subject: Subject) -> tuple[str, str, Sequence[Container]]:
    """Return what captures traffic, a remedy that depends on it, and the init containers after it.

    A pod with istio-validation has its rules from a CNI plugin, before any of its containers starts.
    """
    inits = [container for container in subject.pod.containers if container.init]
    names = [container.name for container in inits]
    if VALIDATION in names:
        when = f"a CNI plugin has set up the rules ({VALIDATION})"
        return when, "", [container for container in inits if container.name != VALIDATION]
    if INIT in names and not subject.values["skip_rule_apply"]:
        return INIT, f"put it before {INIT}, ", inits[names.index(INIT) + 1 :]
    return "", "", ()


CHECKS: tuple[Check, ...] = (
    mistakes,
    unquoted,
    unknown,
    misplaced,
    deprecated,
    overridden,
    ignored,
    host_network,
    no_sidecar,
    proxy_config,
    users,
    owner_groups,
    tproxy,
    init_privileges,
    init_order,
)

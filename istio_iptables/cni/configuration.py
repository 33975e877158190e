"""configuration: what an operator may write into the plugin's entry of a node's network configuration.

Each key is declared once, in KEYS; the checks, `cni install` and the docs read this table. The settings of
rules are not declared again: `settings` takes them by their long flag names, as a --config file does.
"""

from __future__ import annotations

from ..errors import SettingsError
from ..settings import parsers
from ..settings.declared import BY_NAME, SETTINGS
from ..settings.mapping import from_mapping
from ..settings.resolve import parse
from ..settings.texts import Given, nearest, shown
from ..startup.record import Record
from .names import ANNOTATIONS, METRICS_FILE, PLUGIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..settings.declared import Setting

# --- values ---------------------------------------------------------------------------------


def _text(value: object) -> str:
    """Return a text. Raises BadValue if it is something else."""
    if not isinstance(value, str):
        raise parsers.BadValue(f"is {_kind(value)} and should be a string")
    return value


def _path(value: object) -> str:
    """Return an absolute path, or an empty text. Raises BadValue."""
    text = _text(value)
    if text and (not text.startswith("/") or "\0" in text):
        raise parsers.BadValue(f"{text!r} is not an absolute path")
    return text


def readable_path(value: object, default: str) -> str:
    """Return a path although the rest may be wrong: the default for none, an empty text for a mistake."""
    try:
        return default if value is None else _path(value)
    except parsers.BadValue:
        return ""


def _seconds(value: object) -> float:
    """Return the seconds of a Go duration such as 5s. Raises BadValue."""
    return parsers.duration(_text(value), NO_NAMES)


def _namespace(value: object) -> str:
    """Return the name of a namespace of Kubernetes, or an empty text. Raises BadValue."""
    text = _text(value)
    return _name(text) if text else ""


def _name(value: object) -> str:
    """Return the name of a namespace of Kubernetes (RFC 1123). Raises BadValue."""
    text = _text(value)
    plain = text.replace("-", "")
    if not (text.isascii() and plain.isalnum() and text == text.lower() and len(text) <= 63):
        raise parsers.BadValue(f"{text!r} is not the name of a namespace")
    return text


def _namespaces(value: object) -> tuple[str, ...]:
    """Return names of namespaces. Raises BadValue."""
    if not isinstance(value, list):
        raise parsers.BadValue(f"is {_kind(value)} and should be a list of names")
    names: list[str] = []
    problems: list[str] = []
    for member in value:
        try:
            names.append(_name(member))
        except parsers.BadValue as bad:
            problems += bad.problems
    if problems:
        raise parsers.BadValue(*problems)
    return tuple(names)


def _mapping(value: object) -> Mapping[str, object]:
    """Return a mapping. Raises BadValue if it is something else."""
    if not isinstance(value, dict):
        raise parsers.BadValue(f"is {_kind(value)} and should be an object")
    return value


def _kind(value: object) -> str:
    kinds: Mapping[type, str] = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return next((word for kind, word in kinds.items() if isinstance(value, kind)), "a number")


class _NoNames:
    """Users and groups for what names none."""

    def user_id(self, _: str) -> int | None:
        """Know no user."""

    def group_id(self, _: str) -> int | None:
        """Know no group."""


#: For what is read on a node: users and groups are numbers.
NO_NAMES = _NoNames()


# --- the table ------------------------------------------------------------------------------


class Key(Record):
    """A key of the plugin's entry. Its default is a value as JSON has it; `read` makes it a typed one."""

    name: str
    help: str
    read: Callable[[object], object]
    default: object = ""


KEYS: tuple[Key, ...] = (
    Key(
        "settings",
        "Settings of every pod on the node, by their long flag names as in a --config file; what a pod sets "
        "itself takes precedence.",
        _mapping,
        {},
    ),
    Key(
        "exclude_namespaces",
        "Namespaces of Kubernetes whose pods get no rules.",
        _namespaces,
        ["kube-system"],
    ),
    Key(
        "plugin_namespace",
        "Namespace in which the plugin's own pods are: they get no rules, and nothing is asked for them.",
        _namespace,
    ),
    Key(
        "plugin_pods",
        "How the names of the plugin's own pods begin.",
        _text,
        f"{PLUGIN}-",
    ),
    Key(
        "kubeconfig",
        "File with the access to the Kubernetes API, for a runtime that hands over no annotations.",
        _path,
    ),
    Key(
        "api_timeout",
        "Longest time that the API is waited for, as a Go duration.",
        _seconds,
        "5s",
    ),
    Key(
        "metrics_file",
        "File in which calls of ADD are counted, as text for Prometheus; empty for none.",
        _path,
        METRICS_FILE,
    ),
    Key("log_file", "File to which log lines are appended, besides standard error.", _path),
)
BY_KEY: Mapping[str, Key] = {key.name: key for key in KEYS}

#: Keys that the specification, or a runtime, puts into the configuration of any plugin.
_OF_PROTOCOL = (
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "args",
    "capabilities",
    "disableCheck",
    "disableGC",
    "dns",
    "ipMasq",
    "ipam",
    "prevResult",
    "runtimeConfig",
)

#: Settings that say how the command runs, and which mean nothing here, or have a key of their own.
_NOT_OF_A_NODE = frozenset({"capture-all-dns", "cni-mode", "ENVOY_USER"})
_OF_RULES = ("Inbound", "Outbound", "Proxy", "DNS", "TPROXY")
_BESIDES_RULES = frozenset(
    {
        "native-nftables",
        "force-iptables-binary",
        "compact",
        "rule-comments",
        "log_output_level",
        "log_as_json",
    }
)


def _refusal(setting: Setting) -> str:
    """Return why a setting cannot be that of a node, nothing if it can."""
    if setting.name in _NOT_OF_A_NODE:
        return "has no effect for the plugin: leave it out"
    if setting.group in _OF_RULES or setting.name in _BESIDES_RULES:
        return ""
    return "says how the command runs, and not which rules a pod gets: leave it out"


#: The settings that a node's configuration may have.
SETTINGS_OF_NODE: tuple[Setting, ...] = tuple(setting for setting in SETTINGS if not _refusal(setting))


class Node(Record):
    """The configuration of a node, checked."""

    given: tuple[Given, ...]
    exclude_namespaces: tuple[str, ...]
    plugin_namespace: str
    plugin_pods: str
    kubeconfig: str
    api_timeout: float
    metrics_file: str
    log_file: str


def read(document: Mapping[str, object]) -> Node:
    """Return the configuration of a node from the plugin's entry, or from what a runtime makes of it.

    Users and groups are numbers: who writes the entry, in a container, knows other names than the node.
    Raises SettingsError with all mistakes.
    """
    values: dict[str, Any] = {}
    mistakes = [
        f"{shown(name)}: unknown key{nearest(name, BY_KEY)}"
        for name in document
        if name not in BY_KEY and name not in _OF_PROTOCOL and not _is_of_others(name)
    ]
    for key in KEYS:
        try:
            values[key.name] = key.read(document.get(key.name, key.default))
        except parsers.BadValue as bad:
            mistakes += [f"{key.name}: {problem}" for problem in bad.problems]
            values[key.name] = key.read(key.default)
    given, wrong = from_mapping(values.pop("settings"), "settings", _refusal)
    parse(given, NO_NAMES, [*mistakes, *wrong])
    return Node(given=tuple(_with_all_dns(given)), **values)


def _is_of_others(name: str) -> bool:
    """Tell whether a key is in somebody's name space, as `cni.dev/valid-attachments` is."""
    return "/" in name or "." in name


def _with_all_dns(given: list[Given]) -> list[Given]:
    """Return the settings; redirected DNS is all DNS, since a pod's servers are not those of the node."""
    everything = BY_NAME["capture-all-dns"]
    return given + [item.replace(setting=everything) for item in given if item.setting.name == "redirect-dns"]


def entry(keys: Mapping[str, object]) -> dict[str, object]:
    """Return the plugin's entry for the list of a network, with these keys of KEYS.

    Raises SettingsError with all mistakes.

    >>> entry({"settings": {"redirect-dns": True}})["settings"]
    {'redirect-dns': True}
    """
    mistakes = [f"{shown(name)}: is not for the operator to set" for name in keys if name in _OF_PROTOCOL]
    if mistakes:
        raise SettingsError(mistakes)
    read(keys)
    own = {key.name: keys[key.name] for key in KEYS if key.name in keys}
    return {"type": PLUGIN, "capabilities": {ANNOTATIONS: True}, **own}

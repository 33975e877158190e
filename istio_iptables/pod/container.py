"""Container: settings as the arguments of a container, and the entry of an init container that has them.

What is written here is what pod_commands.py prints and what deploy/ holds.
"""

from __future__ import annotations

from ..rules.istio import PROGRAM
from ..settings.declared import BY_NAME, SETTINGS, Given, shown
from ..startup.record import Record
from .annotations import BY_SETTING, INIT, PROXY_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..settings.resolve import Operation, Parsed

#: More of a value than this does not help in a comment.
_LONGEST_IN_COMMENT = 60

_CNI_MODE = BY_NAME["cni-mode"]
_OF_THE_ENTRY = "the root file system is read-only: an image that has no lock file can make none"


class Rights(Record):
    """What a container may do: the user and group that it runs as, and its capabilities.

    Only root's capabilities count: others lose theirs when a program starts (capabilities(7)), and Kubernetes
    has no ambient ones.
    """

    user: int
    group: int
    capabilities: tuple[str, ...]

    def security_context(self) -> dict[str, Any]:
        """Return a container's securityContext that grants this and no more."""
        added = {"add": list(self.capabilities)} if self.capabilities else {}
        return {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "capabilities": {"drop": ["ALL"], **added},
            "readOnlyRootFilesystem": True,
            "runAsUser": self.user,
            "runAsGroup": self.group,
            "runAsNonRoot": self.user != 0,
        }


def _touches_rules(operation: Operation) -> bool:
    """Tell whether rules are written; a cleanup looks at them even if it is to write none."""
    return operation.cleanup_only or not (operation.skip_rule_apply or operation.dry_run)


def rights(parsed: Parsed) -> Rights:
    """Return the least that a container needs for what its settings make it do.

    Where it needs no capability it runs as the proxy, who may validate without any.
    """
    operation = parsed.operation()
    needed: list[str] = []
    if _touches_rules(operation):
        needed += ["NET_ADMIN", "NET_RAW"]
    if operation.network_namespace:
        needed.append("SYS_ADMIN")  # setns(2)
    if not needed:
        users = parsed.values["proxy_uids"] or (int(PROXY_ID),)
        groups = parsed.values["proxy_gids"] or users
        return Rights(users[0], groups[0], ())
    if operation.run_validation and not operation.dry_run and not operation.cleanup_only:
        needed += ["SETUID", "SETGID"]  # to connect as the proxy, and as somebody else
    return Rights(0, 0, tuple(needed))


class ContainerSettings(Record):
    """What settings come to: one Given for each, in the order of the declarations.

    Settings that a pod has annotations for are there even if nobody gave them, unless they are empty then:
    the defaults of other tools of this name differ.
    """

    settings: tuple[Given, ...]

    def arguments(self) -> list[str]:
        """Return the settings that have flags as arguments."""
        flags = [f"--{given.setting.name}={given.text}" for given in self.settings if given.setting.has_flag]
        return [PROGRAM, *flags]

    def variables(self) -> dict[str, str]:
        """Return the settings that are variables only."""
        return {given.setting.variable: given.text for given in self.settings if not given.setting.has_flag}

    def comments(self) -> list[str]:
        """Return a line of comment for each setting: what it is, in one column, and where it comes from."""
        words = [shown(f"{given.setting.flag}={_shortened(given.text)}") for given in self.settings]
        width = max(map(len, words), default=0)
        return [
            f"# {word:{width}}  {shown(given.origin)}"
            for word, given in zip(words, self.settings, strict=True)
        ]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_IN_COMMENT else f"{text[: _LONGEST_IN_COMMENT - 3]}..."


def container_settings(given: Iterable[Given]) -> ContainerSettings:
    """Return what settings, the strongest last, come to."""
    strongest = {
        name: Given(annotation.setting, annotation.setting.default, "default")
        for name, annotation in BY_SETTING.items()
        if annotation.setting.default
    }
    strongest |= {item.setting.name: item for item in given}
    return ContainerSettings(
        tuple(strongest[setting.name] for setting in SETTINGS if setting.name in strongest)
    )


def for_entry(found: ContainerSettings, operation: Operation) -> ContainerSettings:
    """Return the settings for the container that `entry` makes, which has a read-only root file system.

    --cni-mode does no harm there: the lock file would be the container's alone, so that locking it keeps
    nobody away, while the network namespace is what all containers of the pod share (backends/lock.py).
    """
    if not _touches_rules(operation) or any(given.setting is _CNI_MODE for given in found.settings):
        return found
    return container_settings((*found.settings, Given(_CNI_MODE, "true", _OF_THE_ENTRY)))


def entry(found: ContainerSettings, image: str, granted: Rights) -> dict[str, Any]:
    """Return a container of initContainers that has these settings, and these rights alone."""
    variables = [{"name": name, "value": value} for name, value in found.variables().items()]
    return {
        "name": INIT,
        "image": image,
        "args": found.arguments(),
        **({"env": variables} if variables else {}),
        "securityContext": granted.security_context(),
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"cpu": "1", "memory": "256Mi"},
        },
    }

"""container: settings as the arguments of a container, and the entry for an init container that has them.

cli/pod_handlers.py prints what is made here, and deploy/ contains it.
"""

from __future__ import annotations

from ..rules.istio import PROGRAM
from ..settings.declared import BY_NAME, SETTINGS
from ..settings.texts import Given, shown
from ..startup.record import Record
from .annotations import BY_SETTING, INIT, PROXY_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..settings.resolve import Operation, Parsed

#: Comments show no more characters of a value.
_LONGEST_IN_COMMENT = 60

_CNI_MODE = BY_NAME["cni-mode"]
_OF_THE_ENTRY = "the root file system is read-only: an image without a lock file cannot make one"


class Rights(Record):
    """The rights of a container: the user and group that it runs as, and its capabilities.

    Capabilities work only for root: other users lose theirs at execve(2) (capabilities(7)), and Kubernetes
    sets no ambient ones.
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
    """Tell whether rules are written or read. A cleanup reads them even with --dry-run."""
    return operation.cleanup_only or not (operation.skip_rule_apply or operation.dry_run)


def rights(parsed: Parsed) -> Rights:
    """Return the least rights that a container needs with these settings.

    If it needs no capability it runs as the proxy's user, which can validate without any.
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
        needed += ["SETUID", "SETGID"]  # to connect as the proxy, and as another user
    return Rights(0, 0, tuple(needed))


class ContainerSettings(Record):
    """The settings of a container: one Given for each, in the order of the declarations.

    A setting that has an annotation is there even if it was not given, unless its default is empty: other
    tools of this name have other defaults.
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
        """Return a comment line for each setting: its value in one column, and where it comes from."""
        values = [shown(f"{given.setting.flag}={_shortened(given.text)}") for given in self.settings]
        width = max(map(len, values), default=0)
        return [
            f"# {value:{width}}  {shown(given.origin)}"
            for value, given in zip(values, self.settings, strict=True)
        ]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_IN_COMMENT else f"{text[: _LONGEST_IN_COMMENT - 3]}..."


def container_settings(given: Iterable[Given]) -> ContainerSettings:
    """Return the settings of a container from what was given, the strongest last."""
    strongest = {
        name: Given(annotation.setting, annotation.setting.default, "default")
        for name, annotation in BY_SETTING.items()
        if annotation.setting.default
    }
    strongest |= {item.setting.name: item for item in given}
    return ContainerSettings(
        tuple(
            strongest[setting.name]
            for setting in SETTINGS
            if setting.name in strongest and not setting.ignored
        )
    )


def for_entry(found: ContainerSettings, operation: Operation) -> ContainerSettings:
    """Return the settings for the container that `entry` makes, which has a read-only root file system.

    --cni-mode loses nothing there: a lock file would belong to this container alone, and keep no
    other process out. The network namespace, which is locked instead, is shared by the whole pod
    (kernel/lock.py).
    """
    if not _touches_rules(operation) or any(given.setting is _CNI_MODE for given in found.settings):
        return found
    return container_settings((*found.settings, Given(_CNI_MODE, "true", _OF_THE_ENTRY)))


#: What a container does that looks for the rules of a CNI plugin, and its name in Istio.
VALIDATION = "istio-validation"
_VALIDATES = ("run-validation", "skip-rule-apply")


def for_validation(given: Iterable[Given]) -> tuple[Given, ...]:
    """Return the settings of a container that proves the rules which a CNI plugin has written."""
    return (*given, *(Given(BY_NAME[name], "true", "--cni") for name in _VALIDATES))


def entry(found: ContainerSettings, image: str, granted: Rights, name: str = INIT) -> dict[str, Any]:
    """Return an entry of initContainers with these settings and only these rights."""
    variables = [{"name": name, "value": value} for name, value in found.variables().items()]
    return {
        "name": name,
        "image": image,
        "args": found.arguments(),
        **({"env": variables} if variables else {}),
        "securityContext": granted.security_context(),
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"cpu": "1", "memory": "256Mi"},
        },
    }

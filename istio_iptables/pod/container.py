"""Container: settings as the arguments of a container, and the entry of an init container that has them.

What is written here is what pod_commands.py prints and what deploy/ holds.
"""

from __future__ import annotations

from ..record import Record
from ..settings import BY_NAME, SETTINGS, Given, shown
from .annotations import BY_SETTING, INIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

#: The first word of the arguments: Istio's image needs it, ours skips it.
PROGRAM_WORD = "istio-iptables"

#: More of a value than this does not help in a comment.
_LONGEST_IN_COMMENT = 60

_CNI_MODE = BY_NAME["cni-mode"]
_OF_THE_ENTRY = "no lock file is needed: the root file system is read-only, and nobody else's"


class Meant(Record):
    """What settings come to: one Given for each, in the order of the declarations.

    Settings that a pod has annotations for are there even if nobody gave them, unless they are empty then:
    the defaults of other tools of this name differ.
    """

    settings: tuple[Given, ...]

    def arguments(self) -> list[str]:
        """Return the settings that have flags as arguments."""
        flags = [f"--{given.setting.name}={given.text}" for given in self.settings if given.setting.has_flag]
        return [PROGRAM_WORD, *flags]

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


def meant(given: Iterable[Given]) -> Meant:
    """Return what settings, the strongest last, come to."""
    strongest = {
        name: Given(annotation.setting, annotation.setting.default, "default")
        for name, annotation in BY_SETTING.items()
        if annotation.setting.default
    }
    strongest |= {item.setting.name: item for item in given}
    return Meant(tuple(strongest[setting.name] for setting in SETTINGS if setting.name in strongest))


def for_entry(found: Meant) -> Meant:
    """Return the settings for the container that `entry` makes, which has a read-only root file system."""
    if any(given.setting is _CNI_MODE for given in found.settings):
        return found
    return meant((*found.settings, Given(_CNI_MODE, "true", _OF_THE_ENTRY)))


def entry(found: Meant, image: str) -> dict[str, Any]:
    """Return a container of initContainers that writes the rules, with the privileges that it takes alone."""
    variables = [{"name": name, "value": value} for name, value in found.variables().items()]
    return {
        "name": INIT,
        "image": image,
        "args": found.arguments(),
        **({"env": variables} if variables else {}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
            "readOnlyRootFilesystem": True,
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": False,
        },
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"cpu": "1", "memory": "256Mi"},
        },
    }

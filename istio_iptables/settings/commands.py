"""Commands: every command once, with the options that only it has, and its operands.

The command line, help and docs read this table, as they do that of the settings.
"""

from __future__ import annotations

from .. import __version__
from ..rules.istio import PROGRAM
from ..startup.record import Record
from . import parsers
from .declared import option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .declared import Setting


class Operand(Record):
    """What stands behind a command word, without a flag: its name in help, and how many there may be.

    `most` 0 means any number. `source` names the source of settings that the operand is, if it is one.
    """

    name: str
    help: str
    least: int = 1
    most: int = 1
    source: str = ""

    @property
    def usage(self) -> str:
        """The operand as it stands in a usage line: FILE, or FILE... if there may be several."""
        return self.name if self.most == 1 else f"{self.name}..."


class Command(Record):
    """A command, what it does, the options that only it has, and its operands.

    A name of two words is a command of a group, which is its first word (see GROUPS).
    """

    name: str
    help: str
    options: tuple[Setting, ...] = ()
    operand: Operand | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The command's name as it stands on a command line."""
        return tuple(self.name.split())


def _format(*formats: str, help: str) -> Setting:
    return option("format", help, parsers.one_of(*formats), default=formats[0], metavar="FORMAT")


COMMANDS: tuple[Command, ...] = (
    Command("apply", "Put the rules in place (what happens without a command)."),
    Command(
        "diff",
        "Show how the rules in place differ from the wanted ones: exit 0 if they do not, 3 if they do.",
        (
            option(
                "json", "Print the difference for programs.", parsers.boolean, default="false", metavar="BOOL"
            ),
        ),
    ),
    Command(
        "validate",
        "Prove with real connections that redirection works: exit 0 if it does, 126 if not.",
        (option("json", "Print the report for programs.", parsers.boolean, default="false", metavar="BOOL"),),
    ),
    Command("cleanup", "Remove everything that this tool ever put there, whatever the settings say."),
    Command(
        "render",
        "Print the rules that the settings mean; nothing is touched.",
        (
            option(
                "family",
                "Only this family, ipv4 or ipv6: iptables-restore takes one at a time.",
                parsers.one_of("ipv4", "ipv6", "", empty=""),
                metavar="FAMILY",
            ),
            option(
                "format",
                "restore (for iptables-restore --noflush), nft (for nft -f), commands (for sh) or json. "
                "Not given: what apply would load.",
                parsers.one_of("restore", "nft", "commands", "json", "", empty=""),
                metavar="FORMAT",
            ),
            option(
                "explain",
                "With --format commands or nft: why each rule is there, above it.",
                parsers.boolean,
                default="false",
                metavar="BOOL",
            ),
        ),
    ),
    Command(
        "pod args",
        "Print the arguments that a pod's manifest means, and where each value came from.",
        (
            _format(
                "yaml",
                "json",
                "shell",
                help="yaml (a list for `args:`, with comments), json (with origins) or shell (a command).",
            ),
        ),
        Operand("FILE", "Manifest of the pod, `-` for standard input.", source="pod"),
    ),
    Command(
        "pod lint",
        "Find what in manifests does not do what it says: exit 0 if there is nothing, 3 if there is.",
        (
            option(
                "json", "Print the findings for programs.", parsers.boolean, default="false", metavar="BOOL"
            ),
            option(
                "ignore",
                "Kinds of findings to leave out, a list: the words in [brackets].",
                parsers.texts,
                metavar="KINDS",
            ),
        ),
        Operand("FILE", "Manifests, `-` for standard input.", most=0),
    ),
    Command(
        "pod init-container",
        "Print an entry for a pod's initContainers that sets up the rules.",
        (
            option(
                "image",
                "Image of the container.",
                parsers.image,
                default=f"{PROGRAM}:{__version__}",
                metavar="IMAGE",
            ),
            _format("yaml", "json", help="yaml (an entry of a list) or json (the container alone)."),
        ),
        Operand("FILE", "Manifest of the pod; not given: the settings alone.", least=0, source="pod"),
    ),
)
COMMAND_BY_NAME: Mapping[str, Command] = {command.name: command for command in COMMANDS}
#: First words of commands of two words, and what the commands of such a group are about.
GROUPS: Mapping[str, str] = {"pod": "What the manifest of a pod means, and what is wrong with it."}

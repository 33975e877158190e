"""iptables_command: legacy or nft rules through the commands iptables-save(8) and iptables-restore(8).

One run of iptables-restore --noflush makes one edit: it reads the table, changes it in memory and
replaces it in the kernel in one go (nft variant: in one transaction).
"""

from __future__ import annotations

from ..change.actions import IPTABLES_LEGACY, IPTABLES_VARIANTS
from ..errors import KernelError
from ..formats import IPTABLES, NFT_FAMILIES
from ..formats.iptables_args import rule_args
from ..formats.iptables_restore import edit_script, parse
from ..rules.edit import Insert, ReplaceRules
from ..rules.model import FAMILIES, TABLES
from .netlink import nftables
from .nft_by_handle import read as read_by_chain
from .proc import existing_legacy_tables, root_remedy
from .process import Result, run, which

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..change.actions import EditTable, Location, UnreadableTable
    from ..rules.edit import TableEdit
    from ..rules.model import Family, Rule, Table, TableName

#: MAX_ARGC of xshared.h: the parser of iptables-restore takes no more arguments of a rule than this,
#: five of which are the program's name, -t TABLE and -A CHAIN; counters take three more.
_MAX_ARGS = 254 - 5
_COUNTER_ARGS = 3
#: No match has more than six arguments (`-m connmark ! --mark 1/2` has five), nor has a target.
_FEW_MATCHES = 40


class IptablesCommand:
    """The Backend that runs iptables-restore of one variant, legacy or nft, depending on `location`."""

    def __init__(self, location: Location) -> None:
        self.location: Location = location
        self._legacy = location == IPTABLES_LEGACY
        self._variant = IPTABLES_VARIANTS[location]
        self._commands: dict[str, tuple[str, ...]] = {}
        self._saved: dict[Family, str] = {}

    @property
    def name(self) -> str:
        """What the log calls it."""
        return self._variant.restore("ipv4")

    def available(self) -> bool:
        """Tell whether the commands of the variant are installed."""
        try:
            self.require()
        except KernelError:
            return False
        return True

    def require(self) -> None:
        """Raise KernelError, which names what is missing, unless the commands are installed."""
        self.command("ipv4", "restore")

    def command(self, family: Family, action: str) -> tuple[str, ...]:
        """Return a command as it is called on this machine: `action` is save, restore or nothing.

        Raises KernelError if it is not installed.
        """
        specific, plain = self._called(family, action), f"{IPTABLES[family]}-{action}".rstrip("-")
        if specific not in self._commands:
            self._commands[specific] = self._find(specific, plain)
        return self._commands[specific]

    def runs(self) -> bool:
        """Tell whether the commands are installed, and their libraries too."""
        return self.available() and run((*self.command("ipv4", "restore"), "--version")).status == 0

    def _called(self, family: Family, action: str) -> str:
        """Return the name of a command: ip6tables-nft-save, or ip6tables-nft for no action."""
        return f"{self._variant.commands[family]}-{action}".rstrip("-")

    def _find(self, specific: str, plain: str) -> tuple[str, ...]:
        path = which(specific)
        if path:
            return (path,)
        multi = which(self._variant.multi)
        if multi:
            return (multi, plain)
        path = which(plain)
        if path and self._variant.marker in run((path, "--version")).output:
            return (path,)
        from ..remedies import command_missing

        raise command_missing(specific)

    def exists(self, family: Family) -> bool:
        """Tell whether any table that the variant could have made exists, without making one."""
        return bool(self._existing(family))

    def _existing(self, family: Family) -> frozenset[str]:
        if self._legacy:
            return existing_legacy_tables(family)
        return frozenset(
            table.name
            for table in nftables.tables()
            if table.family == NFT_FAMILIES[family] and table.name in (*TABLES, "filter", "security")
        )

    def save(self, family: Family) -> str:
        """Return what iptables-save prints, an empty text if there is nothing to print.

        A table that another program has filled with nft, so that iptables cannot read it, is left out.
        """
        before = self._existing(family)
        if not before:
            return ""
        result = run((*self.command(family, "save"), "--counters"), private_lock=self._legacy)
        if result.status != 0:
            raise self._failed(family, "save", result)
        lacking = before - _whole_tables(result.output)
        if lacking and lacking & self._existing(family):  # else another program has removed the table
            raise KernelError(
                f"{self._called(family, 'save')} did not print the whole of the table "
                f"{', '.join(sorted(lacking))}: what is in place is not known",
                "run again; if it stays so, see what limits the command (`ulimit -a`, memory)",
            )
        return result.output

    def unreadable(self, family: Family) -> tuple[UnreadableTable, ...]:
        """Return the tables that iptables could not read last time, with how to remove what is owned."""
        saved = self._saved.get(family, "")
        if self._legacy or "is incompatible" not in saved:
            return ()
        readable = {line[1:] for line in saved.splitlines() if line.startswith("*")}
        existing = {table.name for table in nftables.tables() if table.family == NFT_FAMILIES[family]}
        return tuple(
            read_by_chain(
                family, name, nftables.chains(NFT_FAMILIES[family], name), self._chain_printer(family, name)
            )
            for name in TABLES
            if name in existing - readable
        )

    def _chain_printer(self, family: Family, table: TableName) -> Callable[[str], str | None]:
        """Return a function that prints one chain of a table, None if iptables cannot read that chain."""

        def show(chain: str) -> str | None:
            result = run((*self.command(family, ""), "-t", table, "-S", chain))
            return result.output if result.status == 0 else None

        return show

    def read(self, family: Family) -> tuple[Table, ...]:
        """Return the tables of this tool that exist."""
        self._saved[family] = self.save(family)
        return parse(self._saved[family], family)

    def holds_other_rules(self) -> bool:
        """Tell whether a table that this tool does not read has rules."""
        if not self._legacy:
            return self.prints_rules()
        others = [name for family in FAMILIES for name in existing_legacy_tables(family) - set(TABLES)]
        return bool(others) and self.available() and self.prints_rules()

    def prints_rules(self) -> bool:
        """Tell whether iptables-save prints a rule, of any table."""
        return any("-A " in self.save(family) for family in FAMILIES if self.exists(family))

    def lacks_nat(self) -> bool:
        """Return False: the command finds that out by itself, and reports it."""
        return False

    def refusal(self, edit: TableEdit) -> str:
        """Return why iptables-restore cannot parse an edit: a rule of too many arguments."""
        for step in edit.steps:
            rules: tuple[Rule, ...] = ()
            if isinstance(step, ReplaceRules):
                rules = step.after
            elif isinstance(step, Insert):
                rules = (step.rule,)
            for rule in rules:
                if len(rule.matches) < _FEW_MATCHES:
                    continue  # a list may have twenty thousand rules
                args = len(rule_args(rule)) + (_COUNTER_ARGS if rule.counters.packets else 0)
                if args > _MAX_ARGS:
                    return (
                        f"{self.name} cannot load a rule of {len(rule.matches)} matches "
                        f"({IPTABLES[edit.family]}, {edit.table}, {step.chain})"
                    )
        return ""

    def do(self, action: EditTable) -> None:
        """Make the edit of an action. In nf_tables base chains without a rule stay: see Machine.__exit__."""
        self.apply(action.edit)

    def apply(self, edit: TableEdit) -> None:
        """Make an edit by one run of iptables-restore."""
        command = (*self.command(edit.family, "restore"), "--noflush", "--counters")
        result = run(command, edit_script(edit), private_lock=self._legacy)
        if result.status != 0:
            raise self._failed(edit.family, f"restore of the table {edit.table}", result)

    def close(self) -> None:
        """Do nothing: no process or handle is open."""

    def _failed(self, family: Family, action: str, result: Result) -> KernelError:
        errors = result.errors
        message = "; ".join(line.strip() for line in errors.splitlines() if line and not line.startswith("#"))
        message = message or result.ended
        return KernelError(f"{self._called(family, action)} failed: {message}", _remedy(message))


def _whole_tables(text: str) -> frozenset[str]:
    """Return the tables that iptables-save printed to their end, or said that it cannot read."""
    names, begun = [], ""
    for line in text.splitlines():
        if line.startswith("*"):
            begun = line[1:]
        elif line == "COMMIT":
            names.append(begun)
        elif line.startswith("# Table `") and "is incompatible" in line:
            names.append(line.split("`")[1].split("'")[0])
    return frozenset(names)


def _remedy(message: str) -> str:
    """Return the remedy for an error of iptables-restore."""
    from .. import remedies

    general = remedies.of_message(message)
    if general:
        return general
    if "Permission denied" in message or "Operation not permitted" in message:
        return root_remedy("NET_ADMIN", "NET_RAW")
    # ENOENT means that the kernel has no chains of that type; that is a missing module, like the next one.
    if (
        "CHAIN_ADD failed" in message or "CHAIN_USER_ADD failed" in message
    ) and "No such file" not in message:
        return (
            "another program has made this chain with nft at another hook or priority: no use to iptables: "
            "move that chain to a table of its own (`nft list ruleset` shows it), or use --native-nftables"
        )
    if "does not exist" in message or "No such file" in message or "not supported" in message:
        return remedies.IPTABLES_LACKING
    if "incompatible" in message:
        return "iptables cannot read what was put into this table with nft: move that to a table of its own"
    if "lock" in message:
        return "end the program that holds the xtables lock, or use --cni-mode"
    return "all is as it was before this step; the message above is the kernel's or iptables' own"

"""libiptc: the legacy tables, written through libiptc and the kernel's own replace operation.

The caller holds the xtables lock from before reading, as libiptc takes none. Reading does not need the
library (read_tables.py).
"""

from __future__ import annotations

import errno
import os

from ...change.actions import IPTABLES_LEGACY
from ...errors import Busy, KernelError
from ...formats import IPTABLES
from ...rules.edit import CreateChain, Insert, RemoveChain, ReplaceRules
from ...rules.model import TABLES, Chain, Table
from ...startup.c_calls import get_errno
from ..iptables_command import IptablesCommand
from ..proc import existing_legacy_tables, root_remedy
from . import read_tables
from .entries import Decoder, Encoder
from .library import LibiptcMissing, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from ...change.actions import EditTable, Location, UnreadableTable
    from ...rules.edit import Step, TableEdit
    from ...rules.model import Family, TableName


class Libiptc:
    """The Backend that writes legacy tables through libiptc."""

    name = "libiptc"
    location: Location = IPTABLES_LEGACY

    def __init__(self) -> None:
        self._libraries: dict[Family, Mapping[str, Callable[..., Any]]] = {}

    def read(self, family: Family) -> tuple[Table, ...]:
        """Return the tables of this tool that exist."""
        existing = existing_legacy_tables(family)
        names = [name for name in TABLES if name in existing]
        tables = []
        for name in names:
            try:
                tables.append(_table(family, name, read_tables.read(family, name)))
            except OSError as error:
                raise explain(family, f"open the table {name}", error.errno or errno.EIO) from error
        return _in_words(tuple(tables), family)

    def require(self) -> None:
        """Do nothing: `refusal` raises an error that names what is missing."""

    def unreadable(self, family: Family) -> tuple[UnreadableTable, ...]:
        """Return nothing: every legacy table can be read."""
        return ()

    def holds_other_rules(self) -> bool:
        """Tell whether a table that this tool does not read has rules, as far as the command can tell."""
        return IptablesCommand(IPTABLES_LEGACY).holds_other_rules()

    def lacks_nat(self) -> bool:
        """Tell whether the kernel has no nat table. This makes the table: call it just before writing."""
        self.load("ipv4")  # make no table that cannot be written
        try:
            return not read_tables.exists("ipv4", "nat")
        except OSError as error:
            raise explain("ipv4", "open the table nat", error.errno or errno.EIO) from error

    def refusal(self, edit: TableEdit) -> str:
        """Return an empty text: a rule takes as many matches as fit in 64 KiB.

        Raises KernelError if the library cannot be loaded.
        """
        self.load(edit.family)
        return ""

    def missing(self) -> str:
        """Return why the library cannot be loaded, or nothing."""
        try:
            self.load("ipv4")
        except KernelError as error:
            return str(error.__cause__)
        return ""

    def load(self, family: Family) -> Mapping[str, Callable[..., Any]]:
        """Return the functions of the library for a family. Raises KernelError if it cannot be loaded."""
        if family not in self._libraries:
            try:
                self._libraries[family] = load(family)
            except LibiptcMissing as error:
                from ...remedies import libiptc_missing

                raise libiptc_missing(str(error)) from error
        return self._libraries[family]

    def do(self, action: EditTable) -> None:
        """Make the edit of an action."""
        self.apply(action.edit)

    def apply(self, edit: TableEdit) -> None:
        """Make an edit in a copy of its table, then replace the kernel's in one go."""
        library, encoder = self.load(edit.family), Encoder(edit.family)
        table = library["init"](edit.table.encode())
        if not table:
            raise explain(edit.family, f"open the table {edit.table}", get_errno())
        try:
            for step in edit.steps:
                chain = step.chain.encode()
                for function, arguments in _calls(step, encoder):
                    if not library[function](chain, *arguments, table):
                        operation = f"{function} in chain {step.chain} of the table {edit.table}"
                        raise explain(edit.family, operation, get_errno())
            if not library["commit"](table):
                raise explain(edit.family, f"commit the table {edit.table}", get_errno())
        finally:
            library["free"](table)

    def close(self) -> None:
        """Do nothing: nothing is held between two edits."""


def _in_words(tables: tuple[Table, ...], family: Family) -> tuple[Table, ...]:
    """Return the tables with what libiptc cannot name, the parts of foreign rules, as iptables-save names it.

    Without the command, or if the rules are other ones meanwhile, these parts keep the extensions' names.
    """
    if not any(rule.raw for table in tables for chain in table.chains for rule in chain.rules):
        return tables
    command = IptablesCommand(IPTABLES_LEGACY)
    if not command.available():
        return tables
    printed = {table.name: table for table in command.read(family)}
    return tuple(
        table.replace(
            chains=tuple(
                _chain_in_words(chain, printed[table.name].chain(chain.name)) for chain in table.chains
            )
        )
        if table.name in printed
        else table
        for table in tables
    )


def _chain_in_words(chain: Chain, printed: Chain) -> Chain:
    if len(chain.rules) != len(printed.rules):
        return chain
    pairs = zip(chain.rules, printed.rules, strict=True)
    return chain.replace(
        rules=tuple(
            rule.replace(matches=words.matches, target=words.target) if rule.raw else rule
            for rule, words in pairs
        )
    )


def _calls(step: Step, encoder: Encoder) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Return a step as calls of functions of libiptc: their arguments between the chain and the table."""
    if isinstance(step, CreateChain):
        yield "create_chain", ()
    elif isinstance(step, RemoveChain):
        yield "delete_chain", ()
    elif isinstance(step, ReplaceRules):
        if step.before:
            yield "flush_entries", ()
        for rule in step.after:
            yield "append_entry", (encoder.encode(rule),)
    elif isinstance(step, Insert):
        yield "insert_entry", (encoder.encode(step.rule), step.position - 1)
    else:
        yield "delete_num_entry", (step.position - 1,)


def _table(family: Family, name: TableName, chains: list[read_tables.Chain]) -> Table:
    decoder = Decoder(family, frozenset(chain for chain, _ in chains))
    return Table(
        family,
        name,
        tuple(
            Chain(chain, tuple(decoder.decode(entry, target) for entry, target in entries))
            for chain, entries in chains
        ),
    )


def explain(family: Family, operation: str, number: int) -> KernelError:
    """Return the error for a failure of libiptc, with the remedy that its errno suggests."""
    cause = f"libiptc ({family}) could not {operation}: {os.strerror(number)}"
    if number in (errno.EPERM, errno.EACCES):
        remedy = root_remedy("NET_ADMIN", "NET_RAW")
    elif number in (errno.ENOENT, errno.ENOPROTOOPT):
        from ...remedies import legacy_lacking

        remedy = legacy_lacking(IPTABLES[family])
    elif number == errno.EAGAIN:
        retry = "another program changed the table at the same time without the xtables lock: run again"
        return Busy(cause, retry)
    else:
        from ...remedies import is_scarce, of_errno

        remedy = of_errno(number) if is_scarce(number) else "see the kernel's log (dmesg) for what it refused"
    return KernelError(cause, remedy)

"""native: the backend for native nftables, which speaks netlink with nf_tables itself.

Where there are no tables nothing is imported and no process is started. An edit is one transaction, all of it
or nothing. What is foreign in the tables is read by nft(8), whose printed form is needed to put it back.
"""

from __future__ import annotations

import errno

from ..errors import Busy, KernelError
from ..rules.istio import AMBIENT_TABLES, NATIVE_FAMILY, NATIVE_TABLES
from .netlink import nftables
from .proc import root_remedy
from .process import which

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from ..change.actions import EditNative
    from ..change.foreign import Neighbour
    from ..rules.nftables.model import NativeTable
    from .netlink.messages import NetlinkError
    from .netlink.nf_tables.read import Reading
    from .netlink.transaction import Message

#: How often an edit is tried again since another program has changed something in nf_tables meanwhile.
_ATTEMPTS = 20


class NativeNftables:
    """The backend for native nftables."""

    def __init__(self) -> None:
        self._generation: int | None = None

    def read(self) -> tuple[NativeTable, ...]:
        """Return the native tables that exist. Raises KernelError if they cannot be read."""
        self._generation = None
        if not _exist():
            return ()
        reading = _reading()
        if reading.unlike:
            by_name = {table.name: table for table in reading.tables}
            from .nft_command import NftCommand

            by_name |= {name: NftCommand().native_table(name) for name in reading.unlike}
            return tuple(by_name[name] for name in NATIVE_TABLES.values() if name in by_name)
        self._generation = reading.generation
        return reading.tables

    def ambient_tables(self) -> tuple[str, ...]:
        """Return the tables of Istio's ambient mode, as `family name`."""
        return tuple(
            f"{table.family} {table.name}"
            for table in nftables.tables()
            if table.name.startswith(AMBIENT_TABLES)
        )

    def foreign_nat(self, known: Container[tuple[str, str]]) -> tuple[Neighbour, ...]:
        """Return the foreign tables with nat chains, but for those that are known, as family and name.

        Without the command nft they cannot be read, and there are none. Raises KernelError.
        """
        # No table, no chain: the namespace of a new pod.
        if not nftables.tables():
            return ()
        found = [table for table in nftables.nat_tables() if table not in _OWN and table not in known]
        if not found or not which("nft"):
            return ()
        from ..formats.nft_foreign import neighbours
        from .nft_command import NftCommand

        nft = NftCommand()
        printed = ((nft.table(*table), nft.table_in_words(*table)) for table in found)
        return tuple(each for json, text in printed for each in neighbours(json, text))

    def do(self, edit: EditNative) -> None:
        """Turn tables into others in one transaction, or raise KernelError and have changed nothing.

        Sets that the new rules need may be made by an earlier transaction; by themselves they do nothing.
        """
        if any(table.is_foreign for table in (*edit.before, *edit.after)):
            from .nft_command import NftCommand

            NftCommand().do(edit)
            return
        from .netlink.messages import NetlinkError
        from .netlink.nf_tables.edit import messages

        transactions = messages(edit.before, edit.after, sets_first=edit.replaces)
        try:
            number = self._generation
            for transaction in transactions:
                number = _commit(edit, transaction, number)
        except (KernelError, NetlinkError) as error:
            if len(transactions) > 1:
                _remove_unused(edit)
            if isinstance(error, NetlinkError):
                raise _refused(error) from error
            raise
        finally:
            self._generation = None


_OWN = {(NATIVE_FAMILY, name) for name in NATIVE_TABLES.values()}


def _exist() -> bool:
    return any((table.family, table.name) in _OWN for table in nftables.tables())


def _reading() -> Reading:
    from .netlink.nf_tables.read import read

    return read(tuple(NATIVE_TABLES.values()))


def _commit(edit: EditNative, messages: list[Message], number: int | None) -> int:
    """Make a transaction on top of a generation, None if that is not known. Return the one that it makes.

    If another program has changed anything in nf_tables since, see whether our tables are as they were, and
    try again. Raises NetlinkError, and KernelError if they are other ones.
    """
    from .netlink.messages import NetlinkError
    from .netlink.transaction import commit, following

    for _ in range(_ATTEMPTS):
        if number is None:
            number = _generation_before(edit)
        try:
            commit(str(edit), messages, number)
        except NetlinkError as error:
            if error.errno != errno.ERESTART:
                raise
            number = None
        else:
            return following(number)
    raise Busy(f"{edit}: another program keeps changing nftables", "run again when it is done")


def _generation_before(edit: EditNative) -> int:
    """Return the generation of nf_tables. Raises KernelError if our tables are not as an edit has them."""
    from .netlink.transaction import generation

    if not edit.before:
        number = generation()
        if not _exist():  # as in a new pod: no more has to be read, and nothing is imported for it
            return number
    from .read_back import require_before

    reading = _reading()
    require_before(edit, reading.tables, reading.unlike)
    return reading.generation


def _remove_unused(edit: EditNative) -> None:
    """Remove the sets that were made for rules which were then refused; one that is left does no harm."""
    from .netlink.nftables_remains import remove_sets

    names = {table.name for table in edit.after}
    try:
        for table in _reading().tables:
            if table.name in names and table.unused:
                remove_sets(NATIVE_FAMILY, table.name, table.unused, with_table=table.is_left_over)
    except OSError:
        pass  # the operator has to know why the rules were refused


def _refused(error: NetlinkError) -> KernelError:
    """Return the error for something that nf_tables did not do."""
    from .. import remedies

    if error.errno == errno.EPERM:
        remedy = f"{root_remedy('NET_ADMIN')}; or, if a program owns the table, {remedies.END_THE_OWNER}"
    elif error.errno in _LACKING:
        remedy = remedies.NFTABLES_LACKING
    elif error.errno == errno.EMSGSIZE:
        remedy = remedies.LARGER_MESSAGES
    else:
        remedy = remedies.of_errno(error.errno)
    return KernelError(error.strerror or str(error), remedy)


#: If the kernel has no chain, expression or protocol of that kind.
_LACKING = (errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT)

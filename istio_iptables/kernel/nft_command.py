"""nft_command: the tables of native nftables, through the command nft(8).

The kernel itself lists the tables, so where there are none no process is started. An edit is one transaction,
all of it or nothing, and can be tried beforehand with `nft --check`.
"""

from __future__ import annotations

from ..change.actions import NFTABLES
from ..errors import KernelError
from ..rules.istio import AMBIENT_TABLES, NATIVE_FAMILY, NATIVE_TABLES
from .netlink import nftables
from .proc import root_remedy
from .process import run, which

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from ..change.actions import EditNative, Location
    from ..change.foreign import Neighbour
    from ..rules.nftables.model import NativeTable


#: The first version of nft that can write the rules and read them back.
OLDEST = (1, 0, 1)


class NftCommand:
    """The backend for native nftables."""

    name = NFTABLES
    location: Location = NFTABLES

    def read(self) -> tuple[NativeTable, ...]:
        """Return the native tables that exist. Raises KernelError if they cannot be read."""
        return _read_all()

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
        own = {(NATIVE_FAMILY, name) for name in NATIVE_TABLES.values()}
        found = [table for table in nftables.nat_tables() if table not in own and table not in known]
        if not found or not which("nft"):
            return ()
        from ..formats.nft_foreign import neighbours

        printed = ((_list(table, "--json"), _list(table, "--stateless")) for table in found)
        return tuple(each for json, text in printed for each in neighbours(json, text))

    def ruleset(self) -> tuple[str, str]:
        """Return all tables as nft prints them: as JSON, and in its own words with handles.

        Raises KernelError if nft is missing or fails.
        """
        options = ("--numeric", "list", "ruleset")
        return _nft("--json", *options), _nft("--handle", *options)

    def table(self, family: str, name: str) -> str:
        """Return one table as JSON. Raises KernelError."""
        return _list((family, name), "--json")

    def require(self) -> None:
        """Raise KernelError unless the command nft is installed."""
        _command()

    def version(self) -> str:
        """Return what nft says of its version, such as `nftables v1.0.6 (Lester Gooch #5)`.

        The kernel is asked nothing. Raises KernelError if nft is missing, or cannot print JSON.
        """
        return _nft("--json", "--version").strip()

    def check(self, edit: EditNative) -> None:
        """Have nft and the kernel try an edit without making it. Raises KernelError if they refuse it.

        Before a first edit it also checks that this nft can print what it writes, as JSON.
        """
        if not edit.before:
            _nft("--json", "list", "tables", NATIVE_FAMILY)
        _nft("--check", "-f", "-", script="".join(_scripts(edit)))

    def do(self, edit: EditNative) -> None:
        """Turn tables into others in one transaction, or raise KernelError and have changed nothing.

        Sets that the new rules need may be made by an earlier transaction; by themselves they do nothing.
        """
        *sets, rules = _scripts(edit)
        for script in sets:
            _nft("-f", "-", script=script)
        try:
            _nft("-f", "-", script=rules)
        except KernelError:
            if sets:
                _remove_unused([table.name for table in edit.after])
            raise
        self._require_written(edit)

    def _require_written(self, edit: EditNative) -> None:
        """Read back what was written, and undo it with a KernelError if it is something else.

        nft looks numbers up as names of users and groups, so what it writes depends on this machine's.
        """
        written = {table.name: table for table in self.read()}
        if all(written.get(table.name) == table for table in edit.after):
            return
        *_, undo = _scripts(edit.replace(before=edit.after, after=edit.before))
        _nft("-f", "-", script=undo)
        raise KernelError(
            "the rules that nft wrote are not those it was given: they were removed again",
            "look for a user or group whose name is a number (`getent passwd`, `getent group`): nft takes "
            "the number for it; or leave --native-nftables out",
        )


def _read_all() -> tuple[NativeTable, ...]:
    existing = {table.name for table in nftables.tables() if table.family == NATIVE_FAMILY}
    return tuple(_read(name) for name in NATIVE_TABLES.values() if name in existing)


def _read(name: str) -> NativeTable:
    from ..formats.nft_json import is_foreign, parse

    # Numbers: names come from files that a small image lacks (/etc/protocols) or that an administrator edits.
    printed = _nft("--json", "--numeric", "list", "table", NATIVE_FAMILY, name)
    try:
        table = parse(printed)
    except ValueError as error:
        raise _unreadable(name, error) from error
    # What this tool never writes can only be restored as nft printed it.
    return table.replace(text=_nft("list", "table", NATIVE_FAMILY, name)) if is_foreign(table) else table


def _list(table: tuple[str, str], *options: str) -> str:
    return _nft(*options, "--handle", "--numeric", "list", "table", *table)


def _unreadable(name: str, error: ValueError) -> KernelError:
    """Return the error for nft printing no JSON. nft 1.0.6 prints none for a table with an owner."""
    if "flags owner" in _nft("list", "table", NATIVE_FAMILY, name):
        return KernelError(f"another program owns the table {NATIVE_FAMILY} {name}", _END_THE_OWNER)
    return KernelError(
        f"nft did not print the table {NATIVE_FAMILY} {name} as JSON: {error}",
        "check that the command nft was built with JSON support (`nft --version --verbose`)",
    )


_END_THE_OWNER = (
    "stop that program: only the owner of a table may change it (`nft list tables` lists the tables)"
)


def _remove_unused(names: Sequence[str]) -> None:
    """Remove the sets that were made for rules which were then refused; one that is left does no harm."""
    try:
        for table in _read_all():
            if table.name in names and table.is_left_over:
                _nft("delete", "table", NATIVE_FAMILY, table.name)
            elif table.name in names:
                for name in table.unused:
                    _nft("delete", "set", NATIVE_FAMILY, table.name, name)
    except KernelError:
        pass  # the operator has to know why the rules were refused


def _scripts(edit: EditNative) -> list[str]:
    from ..formats.nft import edit_scripts

    return edit_scripts(edit.before, edit.after, sets_first=edit.replaces)


def _command() -> str:
    path = which("nft")
    if not path:
        from ..remedies import nft_missing

        raise nft_missing()
    return path


def _nft(*arguments: str, script: str = "") -> str:
    result = run((_command(), *arguments), script)
    if result.status != 0:
        message = "; ".join(line.strip() for line in result.errors.splitlines() if line.strip(" ^~"))
        message = message or result.ended
        raise KernelError(f"nft {' '.join(arguments)} failed: {message}", _remedy(message))
    return result.output


def _remedy(message: str) -> str:
    """Return the remedy for an error of nft."""
    from .. import remedies

    general = remedies.of_message(message)
    if general:
        return general
    if "JSON support not compiled-in" in message:
        return remedies.NFT_WITH_JSON
    if "Operation not permitted" in message:
        return f"{root_remedy('NET_ADMIN')}; or, if a program owns the table, {_END_THE_OWNER}"
    if "Operation not supported" in message or "No such file or directory" in message:
        return remedies.NFTABLES_LACKING
    return "all is as it was before this step; the message above is nft's own"

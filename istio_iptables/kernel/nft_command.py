"""nft_command: what only nft(8) can read: tables of other programs, and what is foreign in native tables.

Rules without anything foreign are read and written without it: see native.py.
"""

from __future__ import annotations

from ..errors import KernelError
from ..rules.istio import NATIVE_FAMILY
from .proc import root_remedy
from .process import run, which

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..change.actions import EditNative
    from ..rules.nftables.model import NativeTable


#: The first version of nft that prints what is foreign so that it can be read.
OLDEST = (1, 0, 1)


class NftCommand:
    """The command nft."""

    def ruleset(self) -> tuple[str, str]:
        """Return all tables as nft prints them: as JSON, and in its own words with handles.

        Raises KernelError if nft is missing or fails.
        """
        options = ("--numeric", "list", "ruleset")
        return _nft("--json", *options), _nft("--handle", *options)

    def table(self, family: str, name: str) -> str:
        """Return one table as JSON. Raises KernelError."""
        return _nft("--json", *_LIST, family, name)

    def table_in_words(self, family: str, name: str) -> str:
        """Return one table in nft's own words, with handles and without what changes. Raises KernelError."""
        return _nft("--stateless", *_LIST, family, name)

    def version(self) -> str:
        """Return what nft says of its version, such as `nftables v1.0.6 (Lester Gooch #5)`.

        The kernel is asked nothing. Raises KernelError if nft is missing, or cannot print JSON.
        """
        return _nft("--json", "--version").strip()

    def native_table(self, name: str) -> NativeTable:
        """Return a native table with something foreign in it. Raises KernelError if it cannot be read."""
        if not which("nft"):
            from ..remedies import nft_missing

            raise nft_missing(f"{NATIVE_FAMILY} {name}")
        from ..formats.nft_json import parse

        # Numbers: names come from files that a small image lacks or that an administrator edits.
        printed = _nft("--json", "--numeric", "list", "table", NATIVE_FAMILY, name)
        try:
            table = parse(printed)
        except ValueError as error:
            raise _unreadable(name, error) from error
        # What this tool never writes can only be restored as nft printed it.
        return table.replace(text=_nft("list", "table", NATIVE_FAMILY, name)) if table.is_foreign else table

    def do(self, edit: EditNative) -> None:
        """Make an edit of tables with something foreign. Raises KernelError if it is refused."""
        from ..formats.nft import edit_scripts

        for script in edit_scripts(edit.before, edit.after, sets_first=edit.replaces):
            _nft("-f", "-", script=script)


_LIST = ("--handle", "--numeric", "list", "table")


def _unreadable(name: str, error: ValueError) -> KernelError:
    """Return the error for nft printing no JSON. nft 1.0.6 prints none for a table with an owner."""
    if "flags owner" in _nft("list", "table", NATIVE_FAMILY, name):
        from ..remedies import END_THE_OWNER

        return KernelError(f"another program owns the table {NATIVE_FAMILY} {name}", END_THE_OWNER)
    return KernelError(
        f"nft did not print the table {NATIVE_FAMILY} {name} as JSON: {error}",
        "check that the command nft was built with JSON support (`nft --version --verbose`)",
    )


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
        return f"{root_remedy('NET_ADMIN')}; or, if a program owns the table, {remedies.END_THE_OWNER}"
    if "Operation not supported" in message or "No such file or directory" in message:
        return remedies.NFTABLES_LACKING
    return "all is as it was before this step; the message above is nft's own"

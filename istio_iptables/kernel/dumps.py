"""dumps: all tables of netfilter that this network namespace has, as the texts that programs print.

Nothing is made by reading: a program is only started for what the kernel says is there. Iptables' legacy
tables would be made by looking into them, and their names are read from /proc first.
"""

from __future__ import annotations

from ..change.actions import IPTABLES_LOCATIONS, IPTABLES_NFT, NFTABLES
from ..errors import KernelError
from ..formats import NFT_FAMILIES
from ..formats.iptables_dump import incompatible
from ..rules.istio import TRACE_TABLE
from ..rules.model import FAMILIES
from ..startup.record import Record
from .iptables_command import IptablesCommand
from .netlink import nftables
from .netlink.messages import NetlinkError
from .nft_command import NftCommand
from .process import which

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..change.actions import Location
    from ..rules.model import Family


class Printed(Record):
    """What a command has printed.

    iptables: one family of one variant, with counters. nftables: all tables as JSON, those of iptables-nft
    too, or one table if iptables has printed others; `rule_texts` has the same rules in nft's own words,
    with the handles by which they are found.
    """

    location: Location
    command: str
    text: str
    family: Family | None = None
    rule_texts: str = ""


class Unreadable(Record):
    """What could not be read, in words for people, why, and what to do about it if that is known.

    `location` is where it is. What is in tables of iptables-nft is printed by nft too, though with less about
    it, if nothing of `nftables` is unreadable.
    """

    what: str
    cause: str
    remedy: str = ""
    location: Location = NFTABLES

    def __str__(self) -> str:
        return f"{self.what}: {self.cause}" + (f" ({self.remedy})" if self.remedy else "")


class Dumps(Record):
    """The texts of all tables, and what of the tables could not be read."""

    printed: tuple[Printed, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()


def read_dumps(*, with_handles: bool = False) -> Dumps:
    """Return the texts of all tables of the network namespace that the process is in; changes nothing.

    nft prints what iptables has not; `with_handles`: all of nf_tables, since iptables tells no handles.
    Raises no error of the kernel's or of a program: what cannot be read is in `unreadable`, for example all
    of it for a user other than root.
    """
    reader = _Reader(with_handles)
    return Dumps(tuple(reader.printed()), tuple(reader.unreadable))


class _Reader:
    def __init__(self, with_handles: bool) -> None:
        self._with_handles = with_handles
        self.unreadable: list[Unreadable] = []
        #: The tables, by nftables' family and name, that iptables-nft has printed as a whole.
        self._printed: set[tuple[str, str]] = set()

    def printed(self) -> Iterator[Printed]:
        for location in IPTABLES_LOCATIONS:
            for family in FAMILIES:
                yield from self._iptables(location, family)
        yield from self._nftables()

    def _miss(self, what: str, error: OSError | KernelError, location: Location = NFTABLES) -> None:
        if isinstance(error, KernelError):
            cause, remedy = error.cause, error.remedy
        else:
            from .proc import root_remedy

            cause, remedy = error.strerror or str(error), root_remedy("NET_ADMIN")
        self.unreadable.append(Unreadable(what, cause, remedy, location))

    def _iptables(self, location: Location, family: Family) -> Iterator[Printed]:
        backend = IptablesCommand(location)
        what = f"the tables of {location} ({family})"
        try:
            if not backend.exists(family):
                return
        except (NetlinkError, KernelError) as error:
            self._miss(what, error, location)
            return
        try:
            command = backend.command(family, "save")
        except KernelError as error:
            from ..remedies import INSTALL_IPTABLES

            self.unreadable.append(Unreadable(what, error.cause, INSTALL_IPTABLES, location))
            return
        try:
            text = backend.save(family)
        except (NetlinkError, KernelError) as error:
            self._miss(what, error, location)
            return
        if location == IPTABLES_NFT:
            names = {line[1:] for line in text.splitlines() if line.startswith("*")}
            self._printed |= {(NFT_FAMILIES[family], name) for name in names - incompatible(text)}
        yield Printed(location, " ".join((*command, "--counters")), text, family)

    def _nftables(self) -> Iterator[Printed]:
        what = "the tables of nftables"
        try:
            tables = nftables.tables()
        except NetlinkError as error:
            self._miss(what, error)
            return
        # Of a table with flags iptables-nft-save does not say that it may be dormant.
        left = [each for each in tables if not (each.is_plain and (each.family, each.name) in self._printed)]
        if not left and not (tables and self._with_handles and which("nft")):
            return
        if not which("nft"):
            from ..remedies import INSTALL_NFTABLES

            names = ", ".join(f"{table.family} {table.name}" for table in left)
            missing = Unreadable(f"{what} ({names})", "the command nft is not installed", INSTALL_NFTABLES)
            self.unreadable.append(missing)
            return
        if self._with_handles or len(left) == len(tables):
            yield from self._ruleset(tables)
        else:
            for table in left:
                yield from self._ruleset((table,), one=True)

    def _ruleset(self, tables: tuple[nftables.TableInfo, ...], *, one: bool = False) -> Iterator[Printed]:
        """Yield tables as nft prints them: the only `one` that is given, or all that there are."""
        nft = NftCommand()
        table = tables[0].family, tables[0].name
        names = " ".join(table)
        try:
            if one:
                json, texts = nft.table(*table), nft.table_in_words(*table)
            else:
                json, texts = nft.ruleset()
        except KernelError as error:
            self._miss(f"the table {names}" if one else "the tables of nftables", error)
            return
        json, broken = _repaired(nft, json, tables)
        for each in broken:
            self.unreadable.append(
                Unreadable(
                    f"the table {each}",
                    "nft prints it as JSON that is broken",
                    "end the program that owns the table, or install another version of nftables",
                )
            )
        command = f"nft -j list table {names}" if one else "nft -j list ruleset"
        yield Printed(NFTABLES, command, json, rule_texts=texts)


def _repaired(
    nft: NftCommand, text: str, tables: tuple[nftables.TableInfo, ...]
) -> tuple[str, tuple[str, ...]]:
    """Return JSON of nft, and the tables that it lacks since nft prints them broken.

    nft 1.0.6 writes bytes of its memory as the flags of a table that a process owns.
    """
    import json

    if _is_json(text):
        return text, ()
    objects: list[object] = []
    broken = []
    for table in tables:
        one = nft.table(table.family, table.name)
        if _is_json(one):
            objects += json.loads(one, strict=False)["nftables"]
        elif not table.name.startswith(TRACE_TABLE):  # `trace --watch` owns that, and it decides nothing
            broken.append(f"{table.family} {table.name}")
    return json.dumps({"nftables": objects}) + "\n", tuple(broken)


def _is_json(text: str) -> bool:
    import json

    try:
        json.loads(text)
    except ValueError:
        return False
    return True

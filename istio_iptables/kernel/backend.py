"""backend: what every backend can do. It is one way to tell the kernel about the rules in one location.

It reads whole tables and makes edits, each in one transaction. It knows nothing of flags, plans or what a
rule is for. To add one: a class in a file of its own, and its entry in choose.backends.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ..change.actions import EditTable, Location, UnreadableTable
    from ..rules.edit import TableEdit
    from ..rules.model import Family, Table

    class Backend(Protocol):
        """A backend for rules of iptables. The one for native nftables is native.NativeNftables."""

        @property
        def name(self) -> str:
            """What the log calls it."""

        @property
        def location(self) -> Location:
            """Where its rules are. Two backends may share a location."""

        def require(self) -> None:
            """Raise KernelError, which names what is missing, unless all that it needs is installed."""

        def read(self, family: Family) -> tuple[Table, ...]:
            """Return the tables of this tool that exist, foreign rules and counters included.

            Creates nothing. Raises KernelError if they cannot be read.
            """

        def unreadable(self, family: Family) -> tuple[UnreadableTable, ...]:
            """Return the tables that exist and that this backend cannot read."""

        def holds_other_rules(self) -> bool:
            """Tell whether a table that this tool does not read (filter, security, ...) has rules."""

        def lacks_nat(self) -> bool:
            """Tell whether the kernel has no nat table, by making it: called just before it is written."""

        def refusal(self, edit: TableEdit) -> str:
            """Return why this backend cannot load an edit, or an empty text; called before any action."""

        def do(self, action: EditTable) -> None:
            """Make an edit: all of it at once or, with a KernelError, none of it."""

        def close(self) -> None:
            """End processes and close handles."""

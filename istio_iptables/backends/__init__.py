"""Backends: the kernel. The only room, with environment.py, that touches the machine.

A Backend reads whole tables and makes edits, each in one transaction. It knows how its part of
the kernel is spoken to and nothing of flags, plans or what a rule is for.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, Protocol, TypeAlias

    from ..edit import TableEdit
    from ..ruleset import Family, Table

    Variant: TypeAlias = Literal["legacy", "nft"]

    class Backend(Protocol):
        """One way of speaking to the kernel about iptables rules."""

        @property
        def name(self) -> str:
            """What the log calls it."""

        @property
        def variant(self) -> Variant:
            """Where its rules are: the legacy tables or nf_tables. Two backends may share a place."""

        def read(self, family: Family) -> tuple[Table, ...]:
            """Return the tables of this tool that exist, strangers' rules and counters included.

            Creates nothing. Raises KernelError if they cannot be read.
            """

        def refusal(self, edit: TableEdit) -> str:
            """Return why this backend cannot load an edit, or nothing; asked before anything is done."""

        def apply(self, edit: TableEdit) -> None:
            """Make an edit: all of it at once or, with a KernelError, none of it."""

        def close(self) -> None:
            """Let go of processes and handles."""

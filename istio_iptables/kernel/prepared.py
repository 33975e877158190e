"""prepared: a plan against this machine, made while its locks are held."""

from __future__ import annotations

from ..change.actions import EditTable, RemoveByHandle
from ..change.execute import execute
from ..change.plan import make_plan
from ..errors import KernelError, SettingsError
from ..settings.declared import OWNER_GROUPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ..change.actions import Action, Live, Location
    from ..change.conflicts import Conflict
    from ..change.execute import Kernel as Doing
    from ..change.neighbours import Interference
    from ..change.plan import Plan
    from ..formats.difference import Difference
    from ..rules.model import Ruleset
    from .choose import Choice

    class Kernel(Doing, Protocol):
        """What a plan needs of machine.Machine."""

        def neighbours(self, live: Live, wanted: Ruleset, location: Location) -> tuple[Interference, ...]:
            """Return what foreign rules keep from the proxy: see change/neighbours.py."""

        def confirm(self, choice: Choice, live: Live) -> Choice:
            """Return the final choice of a backend, just before writing."""

        def refusal(self, action: Action) -> str:
            """Return why a backend could not do an action, or nothing."""


class Prepared:
    """A plan against a machine, made while its locks are held: look at it, then apply it or not."""

    def __init__(
        self,
        machine: Kernel,
        live: Live,
        wanted: Ruleset,
        choice: Choice,
        plan: Plan,
        conflicts: tuple[Conflict, ...] = (),
    ) -> None:
        self._machine = machine
        self.live = live
        self.wanted = wanted
        self.choice = choice
        self.plan = plan
        #: What is in place under Istio's names and is foreign: then nothing can be changed.
        self.conflicts = conflicts
        self._applied = False

    def require_no_conflict(self) -> None:
        """Raise KernelError if something foreign is in place under Istio's names."""
        if self.conflicts:
            from ..formats.notices import conflict

            cause, remedy = conflict(self.conflicts)
            raise KernelError(f"{cause}: nothing was changed", remedy)

    @property
    def neighbours(self) -> tuple[Interference, ...]:
        """What foreign rules keep from the proxy, now or once the wanted rules are in place."""
        if not self.wanted.tables or self.conflicts:
            return ()
        return self._machine.neighbours(self.live, self.wanted, self.choice.location)

    @property
    def taken_over(self) -> tuple[str, ...]:
        """A line for each rule that Istio's own tool left without a comment and that the plan removes."""
        if not any(
            isinstance(action, RemoveByHandle) or (isinstance(action, EditTable) and action.edit.detaches)
            for action in self.plan.actions
        ):
            return ()
        from ..formats.notices import taken_over

        return tuple(taken_over(self.plan.actions))

    @property
    def differences(self) -> tuple[Difference, ...]:
        """What the plan changes, for people: the tables, and the routing besides them, that differ."""
        from ..formats.difference import differences

        return differences(self.plan)

    def confirm_backend(self) -> None:
        """Make the choice of the backend final; `apply` begins with this.

        Where neither rules nor tables tell which backend to use, this tries the legacy nat table, which
        makes it, and plans again for nf_tables if there is none.
        """
        choice = self._machine.confirm(self.choice, self.live)
        if choice.location != self.choice.location:
            self.plan = make_plan(self.live, self.wanted, choice.location)
        self.choice = choice

    def require_loadable(self) -> None:
        """Raise SettingsError if the backend cannot load a rule of the plan; touches nothing."""
        # What is replaced has to be loadable too: it is restored if a later step fails.
        edits = [action for action in self.plan.actions if isinstance(action, EditTable)]
        both_ways = [way for edit in edits for way in (edit, edit.inverse())]
        refusals = dict.fromkeys(text for way in both_ways if (text := self._machine.refusal(way)))
        if refusals:
            raise SettingsError(
                f"variable {OWNER_GROUPS}: {text} (backend chosen: {self.choice.why}): list "
                "fewer groups, or use libiptc or --native-nftables, which have no such limit"
                for text in refusals
            )

    def apply(self) -> None:
        """Do the actions of the plan, once.

        Raises SettingsError if the backend cannot load it, before anything is changed, and
        KernelError if the kernel refused an action, after the actions before it have been undone.
        """
        from .signals import SignalsDeferred

        if self._applied:
            raise RuntimeError("this plan has been applied: prepare another one")
        self.require_no_conflict()
        self.confirm_backend()
        self.require_loadable()
        self._applied = True
        with SignalsDeferred() as signals:
            execute(self.plan, self._machine, interrupted=signals.pending)

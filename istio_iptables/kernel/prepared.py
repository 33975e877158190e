"""prepared: a plan against this machine, made while its locks are held."""

from __future__ import annotations

from ..change.execute import execute
from ..change.plan import make_plan
from ..errors import SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..change.actions import Live
    from ..change.plan import Plan
    from ..formats.difference import Difference
    from ..rules.model import Ruleset
    from .choose import Choice
    from .machine import Machine


class Prepared:
    """A plan against a machine, made while its locks are held: look at it, then apply it or not."""

    def __init__(self, machine: Machine, live: Live, wanted: Ruleset, choice: Choice, plan: Plan) -> None:
        self._machine = machine
        self.live = live
        self.wanted = wanted
        self.choice = choice
        self.plan = plan
        self._applied = False

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
        choice = self._machine.confirm(self.choice)
        if choice.location != self.choice.location:
            self.plan = make_plan(self.live, self.wanted, choice.location)
        self.choice = choice

    def require_loadable(self) -> None:
        """Raise SettingsError if the backend cannot load a rule of the plan; touches nothing."""
        # What is replaced has to be loadable too: it is restored if a later step fails.
        both_ways = [way for action in self.plan.actions for way in (action, action.inverse())]
        refusals = dict.fromkeys(text for way in both_ways if (text := self._machine.refusal(way)))
        if refusals:
            raise SettingsError(
                f"variable ISTIO_OUTBOUND_OWNER_GROUPS: {text} (backend chosen: {self.choice.why}): list "
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
        self.confirm_backend()
        self.require_loadable()
        self._applied = True
        for action in self.plan.actions:
            self._machine.check(action)
        with SignalsDeferred() as signals:
            execute(self.plan, self._machine, interrupted=signals.pending)

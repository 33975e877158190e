"""here: the facts that the checks need, each read when it is first asked for, for one run's settings."""

from __future__ import annotations

from functools import cached_property

from ...change.actions import IPTABLES_NFT
from ...errors import KernelError, SettingsError
from ...kernel.choose import Choice, forced_location
from ...kernel.iptables_command import IptablesCommand
from ...kernel.proc import existing_legacy_tables
from ...kernel.xtables.libiptc import Libiptc
from ...policy import build
from ...rules.istio import NATIVE_FAMILY
from ...rules.model import FAMILIES, IPV4, Ruleset
from ...settings.config import Everything
from ...settings.parsers import members
from ...settings.resolve import resolve
from ..features import NF_TABLES, legacy_table
from ..needs import Needs
from . import kernel, process, rules
from .names import PatientMachine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...rules.model import Family
    from ...settings.config import Config
    from ...settings.resolve import Operation, Parsed
    from ..checks.names import LookUp
    from ..checks.rights import Rights
    from ..features import Evidence
    from .rules import InPlace


class Here:
    """This machine, and the network namespace that the process is in, as a run with some settings meets it.

    Each attribute raises what keeps it from being read, again and again: KernelError, SettingsError, OSError.
    """

    def __init__(
        self,
        parsed: Parsed,
        operation: Operation,
        machine: PatientMachine,
        not_entered: KernelError | None = None,
    ) -> None:
        self.parsed = parsed
        self.operation = operation
        self._machine = machine
        #: Why the process is not in the network namespace of the settings.
        self.not_entered = not_entered

    # --- the settings -----------------------------------------------------------------------

    @cached_property
    def _resolved(self) -> tuple[Config, tuple[str, ...]] | SettingsError:
        try:
            return resolve(self.parsed, self._machine)
        except SettingsError as error:
            return error

    @property
    def config(self) -> Config:
        """The settings, with what depends on the machine decided."""
        return self._settled()[0]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be said of settings that have no effect, or less than they look."""
        return self._settled()[1]

    def _settled(self) -> tuple[Config, tuple[str, ...]]:
        if isinstance(self._resolved, SettingsError):
            raise self._resolved
        return self._resolved

    @property
    def writes(self) -> bool:
        """True if a run with these settings reads and writes rules."""
        return not (self.operation.dry_run or self.operation.skip_rule_apply)

    @cached_property
    def wanted(self) -> Ruleset:
        """The rules that a run puts in place: none if it cleans up."""
        return Ruleset() if self.operation.cleanup_only else build(self.config)

    @property
    def forced(self) -> bool:
        """True if the settings choose the location of the rules."""
        return bool(self.operation.forced_variant or self.operation.native_nftables)

    @cached_property
    def needs(self) -> Needs:
        """What the rules need, and where they go."""
        forced = forced_location(self.operation.forced_variant, self.operation.native_nftables)
        if not self.wanted.tables and not isinstance(self._in_place, Exception):
            places = self._in_place.live.locations
            return Needs(self.wanted, places[0] if len(places) == 1 else None)
        return Needs(self.wanted, self.choice.location if self.choice else forced)

    @property
    def families(self) -> tuple[Family, ...]:
        """The families that rules are made for; both for a cleanup, which looks everywhere."""
        return self.needs.families or FAMILIES

    # --- this process and this machine ------------------------------------------------------

    @cached_property
    def rights(self) -> Rights:
        """The rights of this process."""
        return process.rights()

    @cached_property
    def evidence(self) -> Evidence:
        """What tells of the kernel's parts."""
        return kernel.evidence()

    @cached_property
    def nftables_answer(self) -> bool | None:
        """Whether the kernel has nf_tables; None if asking would load them, or if it may not be asked."""
        try:
            return kernel.nftables_answer(self.evidence)
        except OSError:
            return None

    @property
    def legacy_list_problem(self) -> KernelError | None:
        """Why the kernel's list of legacy tables cannot be read."""
        try:
            for family in FAMILIES:
                existing_legacy_tables(family)
        except KernelError as error:
            return error
        return None

    @property
    def usable(self) -> tuple[bool, bool]:
        """Whether there is an IPv4, and an IPv6, address that traffic could use."""
        return self._machine.usable_families()

    @property
    def look_ups(self) -> tuple[LookUp, ...]:
        """The look-ups of users and groups that the settings cause."""
        _ = self._resolved
        for given in self.parsed.changed:
            find = _BY_FIELD.get(given.setting.field)
            for name in members(given.text) if find else ():
                if find and name != "*" and not name.isdigit():
                    find(self._machine, name)
        return self._machine.look_ups

    # --- the rules in place -----------------------------------------------------------------

    @cached_property
    def _in_place(self) -> InPlace | Exception:
        if self.not_entered:
            return self.not_entered
        try:
            loaded = self.evidence.presence(NF_TABLES) not in ("installed", "absent")
            return rules.read(self.wanted, self.operation, with_nftables=loaded)
        except Exception as error:  # raised again where it is asked for
            return error

    @property
    def in_place(self) -> InPlace:
        """What is in place."""
        if isinstance(self._in_place, Exception):
            raise self._in_place
        return self._in_place

    @cached_property
    def choice(self) -> Choice | None:
        """The backend that a run ends up with, None if that is not known.

        It begins with the legacy tables, and finds only when it writes that there is no nat table.
        """
        choice = None if isinstance(self._in_place, Exception) else self._in_place.choice
        if choice is None or not choice.untried:
            return choice
        if self.evidence.presence(legacy_table(IPV4, "nat"), (IPV4,)) != "absent":
            return choice
        name = IptablesCommand(IPTABLES_NFT).name
        return Choice(IPTABLES_NFT, name, "the kernel has no legacy nat table")

    @property
    def for_nft(self) -> tuple[str, ...]:
        """The tables in place that only nft can read."""
        if isinstance(self._in_place, Exception):
            return ()
        live = self._in_place.live
        foreign = (f"{NATIVE_FAMILY} {table.name}" for table in live.native if table.is_foreign)
        return (*foreign, *map(str, live.unreadable))

    @property
    def uses_libiptc(self) -> bool:
        """True if libiptc is to write the rules, though it may be missing."""
        if self.choice is None:
            return not Libiptc().missing() and not self.forced
        return self.choice.backend == Libiptc.name

    # --- who is in the rules ----------------------------------------------------------------

    @property
    def uids(self) -> tuple[int, ...]:
        """The UIDs that the rules name."""
        return self.config.proxy_uids

    @property
    def gids(self) -> tuple[int, ...]:
        """The GIDs that the rules name."""
        groups = self.config.owner_groups
        listed = () if isinstance(groups, Everything) else groups
        return (*self.config.proxy_gids, *listed, *self.config.owner_groups_excluded)


_BY_FIELD = {
    "proxy_uids": PatientMachine.user_id,
    "proxy_gids": PatientMachine.group_id,
    "owner_groups": PatientMachine.group_id,
    "owner_groups_excluded": PatientMachine.group_id,
}

"""needs: what the rules of the settings need of a machine, and whether something missing matters."""

from __future__ import annotations

from ..change.actions import IPTABLES_LEGACY, IPTABLES_NFT, NFTABLES
from ..rules.model import Ruleset
from ..startup.record import Record
from .model import FAIL, Answer, doubtful, fine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..change.actions import Location
    from ..rules.model import Family, Match, TableName, Target

#: What makes rules go to a location.
ASKED_BY: Mapping[Location, str] = {
    IPTABLES_LEGACY: "rules in the legacy tables",
    IPTABLES_NFT: "rules of iptables-nft",
    NFTABLES: "--native-nftables",
}


class Needs(Record):
    """The rules that a run is to put in place, and the location that it is to write them to.

    `location` is None if it is not known, since what is in place could not be read. Without rules it is a
    cleanup: then it is where the rules are, None if they are in no single place.
    """

    wanted: Ruleset
    location: Location | None

    @property
    def families(self) -> tuple[Family, ...]:
        """The families that have rules."""
        return self.wanted.families()

    def tables(self, family: Family) -> tuple[TableName, ...]:
        """Return the tables of a family that have rules."""
        return tuple(t.name for t in self.wanted.tables if t.family == family and not t.is_empty)

    def kinds(self, family: Family) -> dict[type[Match] | type[Target], None]:
        """Return the kinds of matches and targets of a family's rules, in the order of the rules."""
        found: dict[type[Match] | type[Target], None] = {}
        for table, _, rule in self.wanted.rules():
            if table.family == family:
                found |= dict.fromkeys(map(type, rule.matches))
                found[type(rule.target)] = None
        return found

    def judge(self, answer: Answer, location: Location) -> Answer:
        """Return what an answer about a location's needs means for the run.

        What is missing is a failure if the rules go there, and not worth a warning if they go elsewhere.
        """
        if answer.status != FAIL or self.location == location:
            return answer
        if self.location is None and not self.wanted.tables:
            return fine(f"{answer.finding}: not needed, since nothing is removed from there", *answer.details)
        if self.location is None:
            unknown = f"it is needed for {ASKED_BY[location]}, and where these go is not known"
            return doubtful(answer.finding, answer.remedy, unknown, *answer.details)
        return fine(f"{answer.finding}: only {ASKED_BY[location]} would need it", *answer.details)

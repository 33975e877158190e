"""clause: what one sentence of the contract promises: for which packets, and what becomes of them."""

from __future__ import annotations

from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..interpreter.condition import Condition
    from ..interpreter.verdict import Verdict


class Clause(Record):
    """Packets that have a condition, and no earlier clause is for, get a verdict.

    `name` is the property that it belongs to, in words with dashes; `says` is the sentence, with the settings
    filled in.
    """

    name: str
    when: Condition
    verdict: Verdict
    says: str

"""neighbour_rules: Hypothesis strategies for the rules of a pod: ours, and those of others around them."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from .our_rules import WRITERS, our_rules
from .pod_settings import SERVERS
from .pod_settings import settings as pod_settings
from .strategies import settings as any_settings
from .testbed import Setup, Step


@st.composite
def ours(draw: DrawFn) -> list[Step]:
    """The rules of this tool for some settings."""
    values = draw(st.sampled_from([pod_settings()] * 4 + [any_settings()]).flatmap(lambda of: of))
    writer = draw(st.sampled_from(WRITERS))
    if writer != "native" and draw(st.integers(0, 3)) == 0:
        values = {**values, "compact": "true"}
    return our_rules(values, writer, SERVERS)


@st.composite
def setups(draw: DrawFn) -> Setup:
    steps = draw(ours())
    return Setup(tuple(steps), draw(st.booleans()), draw(st.sampled_from([False, False, True])))

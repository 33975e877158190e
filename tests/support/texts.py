"""texts: what a parser says about a text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from istio_iptables.settings.facts import Facts
from istio_iptables.settings.parsers import BadValue

FACTS = Facts(users={"envoy": 101}, groups={"payments": 2000})


def problems(parse: Callable[[str, Facts], object], text: str) -> tuple[str, ...]:
    with pytest.raises(BadValue) as caught:
        parse(text, FACTS)
    assert str(caught.value) == "; ".join(caught.value.problems)
    return caught.value.problems

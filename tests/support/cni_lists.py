"""cni_lists: network configurations as nodes have them, for tests of what puts the plugin into them.

Texts are written piece by piece, not by a JSON writer, so that blanks, escapes and keys are as people have
them.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

from hypothesis import strategies as st

OURS = "istio-iptables-cni"
ENTRY: dict[str, object] = {
    "type": OURS,
    "capabilities": {"io.kubernetes.cri.pod-annotations": True},
    "settings": {"redirect-dns": True},
}
#: What earlier versions, or people, may have left as the plugin's entry.
OLD_ENTRIES = (ENTRY, {"type": OURS}, {"type": OURS, "log_file": "/var/log/x"})

_BLANKS = ("", " ", "\n", "\r\n", "\t", "\n    ", "\r\n\t\t", "  \n\n  ")
_NAMES = st.sampled_from(["k8s-pod-network", "cbr0", "a.b_c-d", "n\u00e9t", "mesh \u2028"])
_VERSIONS = st.sampled_from(["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
_TEXTS = st.sampled_from(
    ["", "plain", "\u00e9\u4e2d", 'quo"te', "back\\slash", "{[,]}:", "tab\t", OURS, "\U0001f600"]
)
_PLAIN = st.none() | st.booleans() | st.integers(-5, 10**20) | st.floats(-1e9, 1e9) | _TEXTS
_VALUES = st.recursive(
    _PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=4,
)
_KEYS = st.sampled_from(
    ["mtu", "ipam", "disableCheck", "x-\u00fc", "plugin", "Plugins", "cniVersions", "\\u00e9"]
)


class Writer:
    """Writes JSON in the ways in which it can be written; a number chooses, since many draws take long."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def blank(self) -> str:
        return self._random.choice(_BLANKS)

    def value(self, value: object) -> str:
        if isinstance(value, dict):
            return self.members(list(value.items()))
        if isinstance(value, list):
            inner = ",".join(f"{self.blank()}{self.value(member)}{self.blank()}" for member in value)
            return f"[{inner or self.blank()}]"
        return json.dumps(value, ensure_ascii=self._random.random() < 0.5)

    def members(self, members: list[tuple[str, object]]) -> str:
        """An object, in which a key may be twice."""
        inner = ",".join(
            f"{self.blank()}{self.value(key)}{self.blank()}:{self.blank()}{self.value(value)}{self.blank()}"
            for key, value in members
        )
        return f"{{{inner or self.blank()}}}"


@st.composite
def plugins(draw: st.DrawFn) -> dict[str, Any]:
    """The configuration of one plugin that is not ours."""
    kind = draw(st.sampled_from(["bridge", "ptp", "calico", "portmap", "istio-cni", f"{OURS}-2"]))
    more = draw(st.dictionaries(_KEYS, _VALUES, max_size=2))
    return dict(draw(st.permutations([("type", kind), *more.items()])))


@st.composite
def lists(draw: st.DrawFn, *, with_ours: bool | None = None) -> str:
    """The text of a valid `.conflist`, which may have entries of ours already, and keys twice."""
    chain: list[Any] = draw(st.lists(plugins(), min_size=1, max_size=3))
    if draw(st.booleans()) if with_ours is None else with_ours:
        for entry in draw(st.lists(st.sampled_from(OLD_ENTRIES), min_size=1, max_size=3)):
            chain.insert(draw(st.integers(0, len(chain))), entry)
    members = [("name", draw(_NAMES)), ("cniVersion", draw(_VERSIONS)), ("plugins", chain)]
    members += draw(st.lists(st.tuples(_KEYS, _VALUES), max_size=2))
    return draw(_object(draw(st.permutations(members))))


@st.composite
def singles(draw: st.DrawFn) -> str:
    """The text of a valid `.conf`."""
    plugin = draw(plugins())
    members = [("cniVersion", draw(_VERSIONS)), ("name", draw(_NAMES)), *plugin.items()]
    return draw(_object(draw(st.permutations(members))))


@st.composite
def _object(draw: st.DrawFn, members: list[tuple[str, object]]) -> str:
    """An object; a key may stand there a second time, before the one that counts."""
    if draw(st.booleans()):
        key, _ = draw(st.sampled_from(members))
        members = [(key, draw(_PLAIN)), *members]
    writer = Writer(draw(st.integers(0, 1 << 32)))
    return f"{writer.blank()}{writer.members(members)}{writer.blank()}"


#: Files that a runtime passes over.
INVALID = st.sampled_from(
    [
        "",
        "{",
        "null",
        "[]",
        '{"name": "x", "plugins": []}',
        '{"name": "x", "cniVersion": "1.0.0", "plugins": [{"type": ""}]}',
        '{"name": "x", "cniVersion": "1.0.0", "plugins": [{"type": "a"},]}',
        '{"name": "x", "cniVersion": "1.0.0", "plugins": [{"type": "a"}]} more',
        '\ufeff{"name": "x", "cniVersion": "1.0.0", "plugins": [{"type": "a"}]}',
        '{"name": 5, "plugins": [{"type": "a"}]}',
        '{"name": "x", "plugins": {"type": "a"}}',
        '{"name": "x", "cniVersion": "1.0.0", "plugins": [{"type": "a", "x": NaN}]}',
        "# a comment\n{}",
    ]
)

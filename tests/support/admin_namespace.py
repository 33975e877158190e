"""admin_namespace: Hypothesis strategies for what an administrator sets besides rules of netfilter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from .pod_settings import OWN
from .testbed import Step

#: Networks all addresses of which are the pod's.
LOCAL = "route add local 203.0.113.192/26 dev lo\n"
LOCAL6 = "route add local 2001:db8:bad:9::/64 dev lo\n"


@st.composite
def routing(draw: DrawFn) -> list[Step]:
    """Seldom a routing rule, which leads to another way out, or a network that is local."""
    what = draw(st.sampled_from(["nothing"] * 7 + ["network"] + ["rule"] * 2))
    if what == "nothing":
        return []
    if what == "network":
        return [Step("ip", LOCAL), Step("ip -6", LOCAL6)]
    kinds: Sequence[Callable[[str], str]] = (
        lambda _: "fwmark 0x4000/0x4000 lookup 300",
        lambda _: "fwmark 0x1 lookup 300",
        lambda own: f"from {own} lookup 300",
        lambda _: "iif vm0 lookup 300",
        lambda _: "iif lo fwmark 0x10 lookup 300",
        lambda _: "fwmark 0x2000/0x2000 unreachable",
        lambda _: "not fwmark 0x0/0xff lookup 300",
    )
    kind = draw(st.sampled_from(kinds))
    priority = draw(st.sampled_from(["", "", " priority 100"]))
    steps = []
    for program, own in (("ip", OWN[4][1]), ("ip -6", OWN[6][1])):
        steps.append(Step(program, f"rule add {kind(own)}{priority}\n"))
    return steps


#: Variables below net/ipv4/conf/IF and their values, which are not those of the start.
_VARIABLES = (
    *[("route_localnet", 1)] * 3,
    *[("rp_filter", 1)] * 2,
    ("rp_filter", 2),
    ("accept_local", 1),
    ("src_valid_mark", 1),
)


@st.composite
def sysctls(draw: DrawFn) -> tuple[tuple[str, int], ...]:
    """Variables of the kernel that change the way of packets, for all interfaces or for one."""
    found = []
    for variable, value in draw(st.lists(st.sampled_from(_VARIABLES), max_size=2)):
        name = draw(st.sampled_from(["all", "all", "eth0", "eth0", "lo1", "vm0"]))
        found.append((f"ipv4/conf/{name}/{variable}", value))
    if draw(st.integers(0, 7)) == 0:
        name = draw(st.sampled_from(["eth0", "vm0"]))
        found.append((f"ipv4/conf/{name}/forwarding", draw(st.integers(0, 1))))
    return tuple(found)

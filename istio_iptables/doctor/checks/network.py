"""network: the network namespace: addresses, interfaces, sysctls, and the routing that rules rely on."""

from __future__ import annotations

from ... import remedies
from ...rules.model import IPV6
from ...settings.resolve import IPV6_NOT_CAPTURED, NO_ADDRESS
from ...startup.record import Record
from ..model import Answer, bad, doubtful, fine, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...errors import KernelError
    from ...rules.model import Family


def namespace(asked: str, not_entered: KernelError | None) -> Answer:
    """Check that the network namespace of the settings could be entered."""
    if not asked:
        return fine("that of this process: --network-namespace is not set")
    return refused(not_entered) if not_entered else fine(f"{asked} was entered")


def addresses(usable: tuple[bool, bool], *, dual_stack: bool) -> Answer:
    """Check the addresses that decide which families are captured: `usable` IPv4, and IPv6."""
    ipv4, ipv6 = usable
    if not ipv4 and not ipv6:
        return doubtful(
            NO_ADDRESS,
            "run it after the interface has its address (the order of CNI plugins, or the unit's After=); "
            "if the pod will have IPv6 alone, run it again then",
        )
    if ipv4 and ipv6:
        if dual_stack:
            return fine("IPv4 and IPv6, both captured")
        return doubtful(IPV6_NOT_CAPTURED, "set --dual-stack, or make sure that the application uses no IPv6")
    if ipv4:
        return fine("IPv4 only" + (": there is no IPv6 for --dual-stack to capture" if dual_stack else ""))
    return fine("IPv6 only, which is captured without --dual-stack")


def ipv6_disabled(values: Mapping[str, str] | None, *, captured: bool, dual_stack: bool) -> Answer:
    """Check net.ipv6.conf.*.disable_ipv6, whose `values` are None in a kernel without IPv6.

    Where it is set for lo, the address ::6 cannot be added.
    """
    if values is None:
        return bad("the kernel has no IPv6", remedies.NO_IPV6) if captured else fine("the kernel has no IPv6")
    off = [name for name, value in values.items() if value == "1"]
    shown = ", ".join(f"net.ipv6.conf.{name}.disable_ipv6 = {value}" for name, value in values.items())
    if captured and "lo" in off:
        return bad(
            "IPv6 is captured, and switched off for lo, where ::6 cannot be added", remedies.IPV6_OFF, shown
        )
    if off and dual_stack and not captured:
        return doubtful(
            f"--dual-stack is set, and IPv6 is switched off ({', '.join(off)}): only IPv4 is captured",
            "set these sysctls to 0 before addresses are given, or leave --dual-stack out",
            shown,
        )
    if off:
        return fine(f"IPv6 is switched off ({', '.join(off)}), and not captured", shown)
    return fine("IPv6 is switched on")


class Forwarding(Record):
    """Sysctls of an interface that decide what becomes of packets with odd addresses (ip-sysctl.rst)."""

    rp_filter: int = 0
    src_valid_mark: int = 0
    accept_local: int = 0
    route_localnet: int = 0


def rp_filter(interfaces: Mapping[str, Forwarding], *, tproxy: bool) -> Answer:
    """Check what reverse path filtering does with packets that TPROXY has marked; `all` counts for each.

    With src_valid_mark the source of a marked packet is looked up in the table of the mark, where every
    address is local, and fib_validate_source() of fib_frontend.c takes the packet for a forged one: even
    without rp_filter, unless accept_local is set and rp_filter is not 1. Without src_valid_mark nothing is
    dropped, whatever rp_filter is.
    """
    if not tproxy:
        return fine("not needed: it matters only to TPROXY")
    of_all = interfaces.get("all", Forwarding())
    dropped = [
        name
        for name, own in interfaces.items()
        if name not in ("all", "default", "lo")
        and max(of_all.src_valid_mark, own.src_valid_mark)
        and not (max(of_all.accept_local, own.accept_local) and max(of_all.rp_filter, own.rp_filter) != 1)
    ]
    if dropped:
        return bad(
            f"the kernel drops what TPROXY captures from {', '.join(dropped)}: src_valid_mark is 1 there",
            "set net.ipv4.conf.all.src_valid_mark, and that of these interfaces, to 0 (wg-quick(8) sets it), "
            "or use --istio-inbound-interception-mode REDIRECT",
        )
    return fine(f"rp_filter is {of_all.rp_filter} and src_valid_mark 0, which lets packets of TPROXY pass")


def route_localnet(rules: Sequence[tuple[str, str]], interfaces: Mapping[str, Forwarding]) -> Answer:
    """Check the rules that send packets from outside to 127.0.0.0/8, each with the table that it is in.

    The kernel drops such packets as they come in, unless route_localnet is set for the interface.
    """
    if not rules:
        return fine("not needed: no rule in place sends packets from outside to 127.0.0.0/8")
    of_all = interfaces.get("all", Forwarding())
    without = [
        name
        for name, own in interfaces.items()
        if name not in ("all", "default", "lo") and not max(of_all.route_localnet, own.route_localnet)
    ]
    if not without:
        return fine("set for every interface")
    return doubtful(
        f"rules send packets from outside to 127.0.0.0/8, which the kernel drops from {', '.join(without)}",
        "set net.ipv4.conf.INTERFACE.route_localnet to 1, or have the program that wrote them use REDIRECT",
        *(f"{words} ({where})" for words, where in rules),
    )


def ip_forward(rerouted: Sequence[str], families: Sequence[Family], *, ipv4: bool, ipv6: bool) -> Answer:
    """Check forwarding, which the virtual machines behind the interfaces of -k need."""
    if not rerouted:
        return fine("not needed: --kube-virt-interfaces is not set")
    off = [] if ipv4 else ["net.ipv4.ip_forward"]
    if IPV6 in families and not ipv6:
        off.append("net.ipv6.conf.all.forwarding")
    if not off:
        return fine("on")
    return doubtful(
        f"{' and '.join(off)} is 0: of what comes from {', '.join(rerouted)}, all that is not captured is "
        "dropped",
        f"set {' and '.join(off)} to 1",
    )


def interfaces(missing: Sequence[str]) -> Answer:
    """Check that the interfaces of -c and -k exist; `missing` has a warning for each that does not."""
    if not missing:
        return fine("those of the settings, if any, exist")
    return doubtful(
        missing[0],
        "correct the name, or ignore this if the interface is made later",
        *missing[1:],
    )


def routing(obstacles: Sequence[KernelError], wanted: Sequence[object]) -> Answer:
    """Check that the addresses and routes besides the rules could be made."""
    if not wanted:
        return fine("not needed: neither TPROXY nor IPv6 is on")
    if obstacles:
        first, *others = obstacles
        return refused(first, *(f"{other.cause}: {other.remedy}" for other in others))
    return fine("nothing is in the way", *map(str, wanted))

"""strategies: Hypothesis strategies for everything that decides which rules there are (SPEC section 2).

`settings()` draws what a user may write: long flag names (or names of variable-only settings) to raw texts,
all of them valid. `environments()` draws what the pod looks like.
"""

from __future__ import annotations

import ipaddress
import string

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from istio_iptables.rules import model
from istio_iptables.rules.lists import union
from istio_iptables.rules.nftables import model as nftables

MAX_ID = 2**32 - 2  # 2**32 - 1 is "no user" for the kernel


def values() -> dict[str, SearchStrategy[str]]:
    """Return valid texts for every setting that decides which rules there are, by the setting's name."""
    yes = ["true", "TRUE", "True", "t", "T", "1"]
    no = ["false", "FALSE", "False", "f", "F", "0"]
    booleans = st.sampled_from(yes + no)
    marks = st.integers(1, 2**32 - 1) | st.sampled_from([1, 1337, 1338, 2**31, 2**32 - 1])
    route_tables = st.integers(1, 250) | st.integers(256, 4_000_000_000)
    return {
        "envoy-port": single_ports(),
        "inbound-capture-port": single_ports(),
        "inbound-tunnel-port": single_ports(),
        "proxy-uid": listed(ids(), min_size=1, max_size=3),
        "proxy-gid": listed(ids(), min_size=1, max_size=3),
        "istio-inbound-interception-mode": st.sampled_from(["REDIRECT", "TPROXY", "TPROXY", ""]),
        "istio-inbound-ports": st.just("*") | listed(ports()),
        "istio-local-exclude-ports": listed(ports()),
        "istio-exclude-interfaces": listed(interfaces(), max_size=3),
        "istio-service-cidr": st.just("*") | listed(cidrs()),
        "istio-service-exclude-cidr": listed(cidrs()),
        "istio-outbound-ports": listed(ports()),
        "istio-local-outbound-ports-exclude": listed(ports()),
        "kube-virt-interfaces": listed(interfaces(), max_size=3),
        "istio-inbound-tproxy-mark": marks.map(str),
        "istio-inbound-tproxy-route-table": route_tables.map(str),
        "redirect-dns": booleans,
        "capture-all-dns": booleans,
        "dns-single-zone": booleans,
        "drop-invalid": booleans,
        "dual-stack": booleans,
        "ISTIO_OUTBOUND_OWNER_GROUPS": st.just("*") | listed(ids(), max_size=20),
        "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": listed(ids()),
        "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": loopback_cidrs(),
    }


def settings() -> SearchStrategy[dict[str, str]]:
    """Random valid settings; each one is absent about half of the time."""
    return st.fixed_dictionaries({}, optional=values())


def colliding_settings() -> SearchStrategy[dict[str, str]]:
    """The same, with lists whose members overlap, touch, or are everything together."""
    ports = listed(st.sampled_from(["80", "81", "82", "80-82", "84-90", "85", "53", "15008"]), max_size=5)
    networks = (
        "10.0.0.0/8 10.0.0.0/9 10.128.0.0/9 11.0.0.0/8 0.0.0.0/0 0.0.0.0/1 128.0.0.0/1 fd00::/8 fc00::/8"
    )
    loopback = "127.0.0.1 127.0.0.0/8 126.0.0.0/7 127.0.0.1/7 ::1 ::2 ::/127 ::/0 ::/1 8000::/1"
    cidrs = listed(st.sampled_from([*networks.split(), *loopback.split()]), max_size=5)
    names = listed(st.sampled_from(["eth0", "eth1", "+", "vm0"]), max_size=3)
    some_ids = listed(st.sampled_from(["0", "1", "2", "3", "1000", "1337"]), min_size=1)
    everything = st.just("*")
    overlapping = {
        "inbound-tunnel-port": st.sampled_from(["53", "80", "15008"]),
        "istio-inbound-ports": everything | ports,
        "istio-service-cidr": everything | cidrs,
        "istio-service-exclude-cidr": cidrs,
        **dict.fromkeys(("istio-exclude-interfaces", "kube-virt-interfaces"), names),
        **dict.fromkeys(("proxy-uid", "proxy-gid", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"), some_ids),
        "ISTIO_OUTBOUND_OWNER_GROUPS": everything | st.just("") | some_ids,
    }
    for name in ("local-exclude-ports", "outbound-ports", "local-outbound-ports-exclude"):
        overlapping[f"istio-{name}"] = ports
    return st.fixed_dictionaries({}, optional={**values(), **overlapping})


@st.composite
def environments(draw: DrawFn) -> tuple[bool, bool, list[str]]:
    """(ipv4, ipv6, DNS servers); at least one family is on, and IPv4 nearly always (SPEC: always)."""
    families = [(True, True), (True, True), (True, False), (True, False), (False, True)]
    ipv4, ipv6 = draw(st.sampled_from(families))
    servers = draw(st.lists(ipv4_addresses() | ipv6_addresses(), max_size=4))
    return ipv4, ipv6, servers


# --- lists as people write them ---


@st.composite
def listed(draw: DrawFn, members: SearchStrategy[str], min_size: int = 0, max_size: int = 4) -> str:
    """A comma-separated list; at times with a duplicate, with empty members, with blanks around members."""
    texts = draw(st.lists(members, min_size=min_size, max_size=max_size))
    if texts and len(texts) < max_size and draw(st.integers(0, 4)) == 0:
        texts.insert(draw(st.integers(0, len(texts))), draw(st.sampled_from(texts)))
    if draw(st.integers(0, 3)) == 0:
        blanks = st.sampled_from(["", "", " ", "  ", "\t"])
        texts = [draw(blanks) + text + draw(blanks) for text in texts]
        for _ in range(draw(st.integers(0, 2))):
            texts.insert(draw(st.integers(0, len(texts))), draw(blanks))
    return ",".join(texts)


# --- members ---


def _port_numbers() -> SearchStrategy[int]:
    some = [1, 22, 53, 80, 443, 8080, 15001, 15006, 15008, 15053, 65535]
    return st.integers(1, 65535) | st.sampled_from(some)


def single_ports() -> SearchStrategy[str]:
    return _port_numbers().map(str)


@st.composite
def ports(draw: DrawFn) -> str:
    """A port or, at times, a range `8000-8100` or `8000:8100` (also of one port)."""
    first = draw(_port_numbers())
    if draw(st.integers(0, 2)) != 0:
        return str(first)
    last = draw(st.integers(first, 65535) | st.just(first))
    return f"{first}{draw(st.sampled_from('-:'))}{last}"


def ids() -> SearchStrategy[str]:
    """UIDs or GIDs as numbers."""
    return (st.integers(0, MAX_ID) | st.sampled_from([0, 100, 1000, 1337, 1338, MAX_ID])).map(str)


@st.composite
def interfaces(draw: DrawFn) -> str:
    """A name of at most 15 characters, at times with `+` at its end, now and then only `+`."""
    common = st.sampled_from(["eth0", "eth1", "lo", "net1", "eth+", "k6t-", "bond0.100", "vethabc@if4", "+"])
    if draw(st.booleans()):
        return draw(common)
    letters = string.ascii_letters + string.digits + "._@"
    name = draw(st.sampled_from(letters)) + draw(st.text(letters + "-", max_size=14))
    if draw(st.integers(0, 2)) == 0:
        return name[:14] + "+"
    return name if name not in (".", "..") else "eth0"


def ipv4_addresses() -> SearchStrategy[str]:
    some = ["10.96.0.10", "10.0.0.0", "192.168.1.77", "127.0.0.53", "169.254.20.10", "255.255.255.255"]
    numbers = st.integers(0, 2**32 - 1)
    return numbers.map(lambda number: str(ipaddress.IPv4Address(number))) | st.sampled_from(some)


@st.composite
def ipv6_addresses(draw: DrawFn) -> str:
    """Compressed, exploded, in capitals; also shapes that glibc and Python write differently."""
    some = [
        "fd00::",
        "fd00:10:96::a",
        "fd00:0:0:1:0:0:0:1",
        "2001:db8:0:1:1:1:1:1",
        "1:0:0:2::3",
        "fe80::1",
        "64:ff9b::1.2.3.4",
        "::ffff:10.1.2.3",
        "::1.2.3.4",
        "::1:0",
        "::6",
        "::",
    ]
    # Hypothesis likes small and large numbers best; groups make addresses with runs of zeros.
    groups = st.lists(st.sampled_from([0, 0, 1, 0xAB]) | st.integers(0, 0xFFFF), min_size=8, max_size=8)
    address = ipaddress.IPv6Address(
        draw(
            groups.map(lambda eight: sum(group << (16 * place) for place, group in enumerate(eight)))
            | st.sampled_from(some).map(lambda text: int(ipaddress.IPv6Address(text)))
        )
    )
    if address.ipv4_mapped is not None and address.ipv4_mapped.is_loopback:
        return "::ffff:10.1.2.3"  # whether -i ::ffff:127.0.0.1 names a loopback address is not said in SPEC
    return draw(st.sampled_from([str(address), str(address), address.exploded, str(address).upper()]))


@st.composite
def cidrs(draw: DrawFn) -> str:
    """A network of either family: any mask, host bits set or not; or a bare address; at times loopback."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        some = ["127.0.0.1", "::1", "::1/128", "127.1.2.3/0", "::1/64"]
        return draw(loopback_cidrs() | st.sampled_from(some))
    if kind == 1:
        return draw(st.sampled_from(["0.0.0.0/0", "::/0", "10.1.2.3/0", "fd00::1/0"]))
    if kind < 6:
        address = draw(ipv4_addresses())
        masks = st.integers(0, 32) | st.sampled_from([8, 12, 16, 24, 32])
    else:
        address = draw(ipv6_addresses())
        masks = st.integers(0, 128) | st.sampled_from([8, 48, 64, 96, 120, 128])
    shape = draw(st.integers(0, 3))
    if shape == 0:
        return address
    mask = draw(masks)
    if shape == 1:
        return str(ipaddress.ip_interface(f"{address}/{mask}").network)
    return f"{address}/{mask}"


@st.composite
def loopback_cidrs(draw: DrawFn) -> str:
    """127.x.y.z/8 to /32, host bits set or not."""
    address = ipaddress.IPv4Address((127 << 24) + draw(st.integers(0, 2**24 - 1) | st.just(1)))
    return f"{address}/{draw(st.integers(8, 32) | st.sampled_from([8, 32]))}"


# --- native tables as this tool may write them ---


def native_tables() -> SearchStrategy[nftables.NativeTable]:
    """A table of rules that this tool can write, in any combination."""
    base = nftables.NativeChain("output", nftables.Hook("filter", "output", -150), ())
    other = nftables.NativeChain("istio-other", None, (model.Rule((), model.RETURN),))
    written = st.lists(native_rules(), max_size=5).map(tuple)
    return st.tuples(written, written).map(
        lambda both: nftables.NativeTable(
            "istio-proxy-mangle",
            (other, base.replace(rules=both[0]), nftables.NativeChain("istio-output", None, both[1])),
        )
    )


@st.composite
def native_rules(draw: DrawFn) -> model.Rule:
    """A rule; no match twice, none that contradicts what its target needs."""
    target = draw(st.sampled_from([model.ACCEPT, model.DROP, model.RETURN]) | _effects())
    found = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "from": native_addresses("source"),
                "to": native_addresses("destination"),
                "ports": native_ports("destination"),
                "out": st.builds(model.OutInterface, native_interfaces(), st.booleans()),
                "mark": st.builds(model.Mark, st.integers(0, 2**32 - 1), negated=st.booleans()),
                "remembered": st.builds(
                    model.ConnectionMark, st.integers(0, 2**32 - 1), negated=st.booleans()
                ),
                "user": st.builds(nftables.Owners, st.just("user"), number_ranges(2**32 - 2), st.booleans()),
                "group": st.builds(
                    nftables.Owners, st.just("group"), number_ranges(2**32 - 2), st.booleans()
                ),
                "state": st.frozensets(
                    st.sampled_from(["NEW", "INVALID", "RELATED", "ESTABLISHED", "UNTRACKED"]), min_size=1
                ).map(model.ConntrackState),
                "comment": native_comments().map(model.Comment),
            },
        )
    )
    matches = list(found.values())
    families = {match.family for match in matches if isinstance(match, nftables.Addresses)}
    if len(families) > 1:
        matches.remove(found["from"])
    elif not families and draw(st.booleans()):
        matches.append(nftables.NfProto(draw(st.sampled_from(model.FAMILIES))))
    if "ports" not in found and draw(st.booleans()):
        matches.append(model.Transport(draw(st.sampled_from(["tcp", "udp"])), draw(st.booleans())))
    counters = draw(st.tuples(st.integers(1, 2**40), st.integers(0, 2**50)).map(lambda n: model.Counters(*n)))
    return model.Rule(tuple(draw(st.permutations(matches))), target, counters=counters)


def _effects() -> SearchStrategy[model.Target]:
    return st.sampled_from([model.SaveMark(), model.RestoreMark(), model.Jump("istio-other")]) | st.builds(
        model.SetMark, st.integers(0, 2**32 - 1)
    )


def native_addresses(direction: str) -> SearchStrategy[nftables.Addresses]:
    return st.sampled_from([("ipv4", 2**32 - 1), ("ipv6", 2**128 - 1)]).flatmap(
        lambda of: st.builds(
            nftables.Addresses, st.just(direction), st.just(of[0]), number_ranges(of[1]), st.booleans()
        )
    )


def native_ports(direction: str) -> SearchStrategy[nftables.Ports]:
    protocols = st.sampled_from(["tcp", "udp"])
    return st.builds(nftables.Ports, st.just(direction), protocols, number_ranges(65535), st.booleans())


@st.composite
def number_ranges(draw: DrawFn, most: int) -> nftables.Ranges:
    """Ranges as `lists.union` returns them; some are single numbers, networks, or everything."""
    numbers = st.integers(0, most) | st.sampled_from([0, 1, most - 1, most])
    pairs = st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair)))
    networks = st.tuples(numbers, st.integers(0, most.bit_length())).map(
        lambda of: (of[0] >> of[1] << of[1], min((of[0] >> of[1] << of[1]) + (1 << of[1]) - 1, most))
    )
    singles = numbers.map(lambda number: (number, number))
    ranges = draw(st.lists(singles | pairs | networks, min_size=1, max_size=4))
    ranges += draw(st.just([]) | st.lists(singles, min_size=10, max_size=20))
    return union(ranges)


def native_interfaces() -> SearchStrategy[str]:
    """Any name that Linux takes but for what nft cannot write."""
    some = [
        "lo",
        "eth0",
        "eth+",
        "*",
        "a*",
        "a*b",
        "*+",
        "**",
        "@set",
        "$x",
        "#",
        ";",
        "{ }",
        "'",
        "é",
        "+x",
        "a+b",
    ]
    characters = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='/:"\\')
    texts = st.text(characters, min_size=1, max_size=14)
    return st.sampled_from([name for name in some if " " not in name]) | texts.filter(
        lambda name: name not in (".", "..", "+") and name[0] not in "-!"
    )


def native_comments() -> SearchStrategy[str]:
    """Any comment but for double quotes: up to 127 bytes."""
    texts = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters='"'), min_size=1)
    printable = texts.map(lambda text: "".join(c for c in text if c.isprintable()) or "x")
    return printable.map(lambda text: text.encode()[:127].decode(errors="ignore"))

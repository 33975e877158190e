"""own_world: the addresses, routes and routing rules of a namespace, as `ip -j` prints them."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from typing import Any

from istio_iptables.interpreter.condition import ALWAYS, AllOf, Condition, In, Masked, Unmodelled, negated
from istio_iptables.interpreter.routing import (
    MAIN_TABLE,
    Address,
    Network,
    Route,
    RoutingRule,
    from_interface,
)
from istio_iptables.rules.model import FAMILIES, FULL_MASK, IPV4

_COMMANDS = "address show\nroute show table all\nrule show\n"


def read_network(namespace: str) -> Network:
    """Read everything, by a process for each family."""
    addresses: list[Address] = []
    routes: list[Route] = []
    rules: list[RoutingRule] = []
    names: dict[str, None] = {}
    for family, option in zip(FAMILIES, ("-4", "-6"), strict=True):
        links, found, ruled = _read(namespace, option)
        addresses += [address for link in links for address in _addresses(link)]
        routes += [_route(family, each) for each in found]
        rules += [_rule(family, each) for each in ruled]
        names |= {link["ifname"]: None for link in links if link}
    return Network(tuple(addresses), tuple(routes), tuple(rules), tuple(names))


def _read(namespace: str, option: str) -> list[Any]:
    done = subprocess.run(
        ["ip", "-netns", namespace, "-j", option, "-batch", "-"],
        input=_COMMANDS,
        capture_output=True,
        text=True,
        check=True,
    )
    decoder = json.JSONDecoder()
    text, parts = done.stdout.strip(), []
    while text:
        part, end = decoder.raw_decode(text)
        parts.append(part)
        text = text[end:].strip()
    return parts


def _addresses(link: Any) -> list[Address]:
    return [
        Address(link["ifname"], each_family, int(ipaddress.ip_address(each["local"])), each["prefixlen"])
        for each in link.get("addr_info", ())
        for each_family in [IPV4 if each["family"] == "inet" else "ipv6"]
    ]


def _range(family: str, text: str) -> tuple[int, int]:
    if text in ("default", "all"):
        text = "0.0.0.0/0" if family == IPV4 else "::/0"
    network = ipaddress.ip_network(text)
    return int(network[0]), int(network[-1])


def _route(family: Any, found: Any) -> Route:
    first, last = _range(family, found["dst"])
    preferred = found.get("prefsrc")
    return Route(
        family,
        str(found.get("table", MAIN_TABLE)),
        found.get("type", "unicast"),
        first,
        last,
        found.get("dev", ""),
        int(ipaddress.ip_address(preferred)) if preferred else None,
        found.get("metric", 0),
    )


def _rule(family: Any, found: Any) -> RoutingRule:
    known = {"priority", "src", "srclen", "dst", "dstlen", "fwmark", "fwmask", "iif", "oif", "table", "not"}
    known |= {"action"}
    parts: list[Condition] = []
    for name, field in (("src", "source"), ("dst", "destination")):
        if found.get(name, "all") != "all":
            text = found[name] + (f"/{found[name + 'len']}" if name + "len" in found else "")
            parts.append(In(field, (_range(family, text),)))
    if "fwmark" in found:
        mask = int(found.get("fwmask", hex(FULL_MASK)), 0)
        parts.append(Masked("mark", int(found["fwmark"], 0), mask))
    if "iif" in found:
        parts.append(from_interface(found["iif"]))
    if "oif" in found:
        parts.append(Unmodelled("oif"))
    parts += [Unmodelled(name) for name in found.keys() - known]
    condition: Condition = AllOf(tuple(parts)) if parts else ALWAYS
    text = " ".join(f"{name} {value}" for name, value in found.items())
    return RoutingRule(
        family,
        found["priority"],
        negated(condition, "not" in found),
        str(found.get("table", "")),
        found.get("action", ""),
        text,
    )

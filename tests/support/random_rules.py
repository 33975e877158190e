"""random_rules: rule sets of one family that no policy would write: any match, any target, chains of chains.

Values are few and next to each other, so that rules meet the same packets. Every rule set is one that
iptables takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from istio_iptables.rules import model
from istio_iptables.rules.model import FULL_MASK, Chain, Cidr, PortRange, Rule, Ruleset, Table

_CIDRS = {
    "ipv4": "10.0.0.2/32 10.0.0.0/24 10.0.0.0/8 127.0.0.0/8 127.0.0.1/32 127.0.0.6/32 198.51.100.0/24 "
    "198.51.100.7/32 198.51.100.6/31 192.0.0.0/3 0.0.0.0/1 224.0.0.0/4",
    "ipv6": "fd00::2/128 fd00::/64 fd00::/8 ::1/128 ::6/128 2001:db8::/32 2001:db8::7/128 2001:db8::6/127 "
    "::/1 fe80::/10 ff00::/8",
}
_PORTS = ((80, 80), (80, 90), (53, 53), (1, 1023), (15001, 15001), (15006, 15008), (8000, 9000), (81, 8000))
_IDS = (0, 1000, 1337)
_MARKS = (0, 1, 3, 1337, 1338, 0x400)
_MASKS = (FULL_MASK, FULL_MASK, FULL_MASK, 0xFF, 1, 0x539)
_INTERFACES = ("eth0", "lo", "eth+", "net9", "net+", "lo+", "e+")
_STATES = ("NEW", "ESTABLISHED", "INVALID", "RELATED")
#: Tables with their built-in chains, and how often each has rules.
_BUILT_IN = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "OUTPUT", "PREROUTING", "OUTPUT", "INPUT", "FORWARD", "POSTROUTING"),
    "nat": ("PREROUTING", "OUTPUT"),
}
_MOST = 60


def random_ruleset(random: Random, family: model.Family) -> Ruleset:
    """Return rules of the three tables, up to 60 in all."""
    left = random.randint(4, _MOST)
    tables = []
    for name, share in (("raw", 4), ("mangle", 2), ("nat", 1)):
        rules = random.randint(0, left // share) if share > 1 else left
        left -= rules
        tables.append(_Maker(random, family, name).table(rules))  # type: ignore[arg-type]  # its three names
    return Ruleset(tuple(tables))


class _Maker:
    """Makes one table."""

    def __init__(self, random: Random, family: model.Family, name: model.TableName) -> None:
        self._random = random
        self._family: model.Family = family
        self._name: model.TableName = name
        # The connection mark of a packet with a zone, before conntrack, is what rules have left there.
        self._has_zones = name == "raw" and random.random() < 0.6

    def table(self, rules: int) -> Table:
        """Return a table with a number of rules. The chains of a hook jump to its further ones alone."""
        chains: list[Chain] = []
        hooks = sorted({self._random.choice(_BUILT_IN[self._name]) for _ in range(3)})
        for hook in hooks:
            share = rules // len(hooks)
            names = [hook, *(f"{hook[:4]}{at}" for at in range(self._random.randint(0, 3)))]
            for at, name in enumerate(names):
                number = share // len(names)
                following = names[at + 1 :]
                chains.append(Chain(name, tuple(self._rule(hook, following) for _ in range(number))))
        return Table(self._family, self._name, tuple(chains))

    def _rule(self, hook: str, following: list[str]) -> Rule:
        target = self._target(hook, following)
        matches = list(self._matches(hook))
        if isinstance(target, (model.Redirect, model.TProxy)):
            matches = [each for each in matches if not isinstance(each, model.Transport)]
            matches.append(model.Transport(self._random.choice(("tcp", "tcp", "udp"))))
        matches += self._ports(matches)
        return Rule(tuple(matches), target)

    # --- matches -------------------------------------------------------------------------------

    def _matches(self, hook: str) -> Iterator[model.Match]:
        random = self._random
        options = ["source", "destination", "transport", "transport", "mark"]
        options += ["owner", "owner"] if hook in ("OUTPUT", "POSTROUTING") else []
        options += ["out"] if hook in ("OUTPUT", "POSTROUTING", "FORWARD") else []
        options += ["in"] if hook in ("PREROUTING", "INPUT", "FORWARD") else []
        options += ["state"] if self._has_zones else ["state", "connmark"]
        for kind in sorted(set(random.sample(options, random.choice((0, 1, 1, 2, 2, 3))))):
            yield from self._match(kind)

    def _match(self, kind: str) -> Iterator[model.Match]:
        random = self._random
        negated = random.random() < 0.3
        if kind == "source":
            yield model.Source(self._cidr(), negated)
        elif kind == "destination":
            yield model.Destination(self._cidr(), negated)
        elif kind == "transport":
            yield model.Transport(random.choice(("tcp", "udp")), random.random() < 0.1)
        elif kind == "in":
            yield model.InInterface(random.choice(_INTERFACES), negated)
        elif kind == "out":
            yield model.OutInterface(random.choice(_INTERFACES), negated)
        elif kind == "state":
            states = frozenset(random.sample(_STATES, random.randint(1, 2)))
            yield model.ConntrackState(states, negated)
        elif kind == "owner":
            yield random.choice((model.UidOwner, model.GidOwner))(random.choice(_IDS), negated)
            if random.random() < 0.3:
                yield model.GidOwner(random.choice(_IDS), not negated)
        else:
            mask = random.choice(_MASKS)
            made = model.Mark if kind == "mark" else model.ConnectionMark
            yield made(random.choice(_MARKS) & mask, mask, negated)

    def _cidr(self) -> Cidr:
        return Cidr.from_ipaddress(self._random.choice(_CIDRS[self._family].split()))

    def _ports(self, matches: list[model.Match]) -> Iterator[model.Match]:
        random = self._random
        if model.Transport("tcp") not in matches and model.Transport("udp") not in matches:
            return
        ranges = [PortRange(*random.choice(_PORTS)) for _ in range(random.randint(2, 4))]
        kind = random.randrange(5)
        if kind < 2:
            yield model.DestinationPort(ranges[0], random.random() < 0.2)
        elif kind == 2:
            yield model.SourcePort(ranges[0], random.random() < 0.2)
        elif kind == 3:
            yield model.DestinationPorts(tuple(ranges), random.random() < 0.2)

    # --- targets -------------------------------------------------------------------------------

    def _target(self, hook: str, following: list[str]) -> model.Target:
        random = self._random
        options: list[model.Target] = [model.RETURN, model.RETURN, model.ACCEPT]
        options += [model.Jump(name, goto=random.random() < 0.2) for name in following] * 2
        if self._name == "nat":
            options += [model.Redirect(random.choice((15001, 15006, 15053)))] * 3
        elif self._name == "mangle":
            options += [model.DROP, self._mark(), self._mark(), model.SaveMark(), model.RestoreMark()]
            if hook == "PREROUTING":
                options += [model.TProxy(15006, random.choice((1337, 1, 0)))] * 2
        else:
            zones = [model.ConntrackZone(1), model.ConntrackZone(2)]
            options += [model.DROP, self._mark(), *(zones if self._has_zones else [model.RestoreMark()])]
        return random.choice(options)

    def _mark(self) -> model.SetMark:
        return model.SetMark(self._random.choice(_MARKS), self._random.choice(_MASKS))

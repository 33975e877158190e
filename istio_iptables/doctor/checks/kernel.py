"""kernel: whether the kernel has the tables, matches and targets that the rules need."""

from __future__ import annotations

from ... import remedies
from ...change.actions import IPTABLES_LEGACY, IPTABLES_NFT, NFTABLES
from ...formats import IPTABLES
from ...rules.model import IPV6
from ..features import NF_TABLES, NFT_COMPAT, NFT_NAT, legacy_table, parts_of_rules, tables_of_rules
from ..model import Answer, bad, fine, unchecked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ...change.actions import Location
    from ...rules.model import Family
    from ..features import Evidence, Feature
    from ..needs import Needs

#: The modules without which there are no legacy tables of a family.
_INTERFACES: Mapping[Family, str] = {"ipv4": "ip_tables", "ipv6": "ip6_tables"}
#: The first Linux with nat chains of family inet, which native rules have.
_FIRST_FOR_NATIVE = (5, 2)


def legacy_tables(needs: Needs, evidence: Evidence, interface: Mapping[Family, bool]) -> Answer:
    """Check the legacy tables; `interface`: whether ip_tables is loaded, which a container cannot do."""
    families = needs.families
    unloaded = [family for family in families if not interface[family]]
    if unloaded:
        commands = " and ".join(f"legacy {IPTABLES[family]}" for family in unloaded)
        modules = " and ".join(_INTERFACES[family] for family in unloaded)
        answer = bad(f"the kernel has not loaded {commands} ({modules})", _lacking(unloaded[0]))
        return needs.judge(answer, IPTABLES_LEGACY)
    parts = [(legacy_table(family, table), (family,)) for family, table in tables_of_rules(needs)]
    names = ", ".join(dict.fromkeys(table for _, table in tables_of_rules(needs)))
    answer = _of_parts(parts, evidence, f"the kernel has {names} ({', '.join(families)})", _lacking("ipv4"))
    return needs.judge(answer, IPTABLES_LEGACY)


def _lacking(family: Family) -> str:
    return remedies.legacy_lacking(IPTABLES[family])


def nf_tables(needs: Needs, evidence: Evidence, *, answers: bool | None) -> Answer:
    """Check nf_tables, for rules of iptables-nft and native ones; `answers`: the kernel has been asked."""
    native = needs.location == NFTABLES
    location: Location = NFTABLES if native else IPTABLES_NFT
    if answers is False:
        answer = bad("the kernel has no nf_tables", _lacking_nft(location))
        return needs.judge(answer, location)
    release = _numbers(evidence.release)
    if native and release and release < _FIRST_FOR_NATIVE:
        return bad(f"Linux {evidence.release} has no nat chains of family inet", remedies.NFTABLES_LACKING)
    parts = [NFT_NAT] if native else [NFT_COMPAT, NFT_NAT]
    if answers is None:
        parts.insert(0, NF_TABLES)
    wanted = [(part, needs.families) for part in parts]
    return needs.judge(
        _of_parts(wanted, evidence, "the kernel has nf_tables", _lacking_nft(location)), location
    )


def _lacking_nft(location: Location) -> str:
    return remedies.NFTABLES_LACKING if location == NFTABLES else remedies.IPTABLES_LACKING


def matches_and_targets(needs: Needs, evidence: Evidence) -> Answer:
    """Check what the rules match by and do, for the location that they go to."""
    location = needs.location or IPTABLES_NFT  # both variants of iptables use the same modules
    parts = list(parts_of_rules(needs, location))
    if not parts:
        return fine("not needed: no rules are made")
    names = ", ".join(part.name.removeprefix("match ").removeprefix("target ") for part, _ in parts)
    remedy = _lacking("ipv4") if location == IPTABLES_LEGACY else _lacking_nft(location)
    return _of_parts(parts, evidence, f"the kernel has what the rules need: {names}", remedy)


def ipv6_nat(needs: Needs, evidence: Evidence, interface: Mapping[Family, bool]) -> Answer:
    """Check that the kernel can translate IPv6 addresses, which came later than for IPv4 (Linux 3.7)."""
    if IPV6 not in needs.families:
        return fine("not needed: IPv6 is not captured")
    legacy = needs.location not in (IPTABLES_NFT, NFTABLES) and interface[IPV6]
    part = legacy_table(IPV6, "nat") if legacy else NFT_NAT
    remedy = _lacking(IPV6) if legacy else _lacking_nft(needs.location or IPTABLES_NFT)
    return _of_parts([(part, (IPV6,))], evidence, "the kernel has it", remedy)


def _of_parts(
    parts: Iterable[tuple[Feature, tuple[Family, ...]]], evidence: Evidence, there: str, remedy: str
) -> Answer:
    """Return the answer for parts that are all needed: `there` is what to say if none is missing."""
    by_presence: dict[str, list[str]] = {}
    for part, families in parts:
        by_presence.setdefault(evidence.presence(part, families), []).append(f"{part.name} ({part.module})")
    if absent := by_presence.get("absent"):
        return bad(f"the kernel has no {', '.join(absent)}, says {evidence.source}", remedy)
    if unknown := by_presence.get("unknown"):
        return unchecked(
            f"not loaded, and nothing here tells whether this kernel has it: {', '.join(unknown)}",
            "load these modules on the node (`modprobe --all`), or see on the node whether "
            f"/lib/modules/{evidence.release} has them",
        )
    if installed := by_presence.get("installed"):
        return fine(there, f"not loaded yet: {', '.join(installed)}: the kernel loads it with the first rule")
    return fine(there)


def _numbers(release: str) -> tuple[int, ...]:
    """Return major and minor version of a kernel release, nothing if they are not to be seen."""
    major, _, rest = release.partition(".")
    minor = "".join(digit for digit in rest.partition(".")[0] if digit.isdigit())
    return (int(major), int(minor)) if major.isdigit() and minor else ()

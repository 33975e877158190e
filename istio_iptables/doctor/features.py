"""features: the parts of the kernel that rules need, and what tells whether this kernel has one.

Nothing here asks the kernel for a part, since it would load the module. It is told by what is registered, by
the modules that are loaded, by the configuration that the kernel was built with, and by the modules that are
installed for it. Where none of these can be read, it is not known.
"""

from __future__ import annotations

from ..change.actions import NFTABLES
from ..rules import model
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Literal, TypeAlias

    from ..change.actions import Location
    from ..rules.model import Family, Match, TableName, Target
    from .needs import Needs

    Kind: TypeAlias = type[Match] | type[Target]
    #: installed: the kernel has it as a module, which it loads when a rule needs it.
    Presence: TypeAlias = Literal["there", "installed", "absent", "unknown"]


class Feature(Record):
    """A part of the kernel.

    `option` is its option in the kernel's configuration, without CONFIG_. `listed` is how the kernel lists it
    among its legacy tables, matches or targets (/proc/net/ip_tables_*), if it does.
    """

    name: str
    module: str
    option: str
    listed: tuple[str, str] | None = None


def _match(name: str, option: str = "") -> Feature:
    option = option or f"NETFILTER_XT_MATCH_{name.upper()}"
    return Feature(f"match {name}", f"xt_{name}", option, ("matches", name))


def _target(name: str, module: str = "", option: str = "") -> Feature:
    option = option or f"NETFILTER_XT_TARGET_{name}"
    return Feature(f"target {name}", module or f"xt_{name}", option, ("targets", name))


_PORTS = Feature("match tcp", "xt_tcpudp", "NETFILTER_XTABLES", ("matches", "tcp"))
_CONNMARK = _target("CONNMARK", "xt_connmark", "NETFILTER_XT_CONNMARK")

#: What rules of iptables need, by the kind of match or target; both variants use the same modules.
IPTABLES_PARTS: Mapping[Kind, Feature] = {
    model.SourcePort: _PORTS,
    model.DestinationPort: _PORTS,
    model.DestinationPorts: _match("multiport"),
    model.UidOwner: _match("owner"),
    model.GidOwner: _match("owner"),
    model.Mark: _match("mark", "NETFILTER_XT_MARK"),
    model.ConnectionMark: _match("connmark", "NETFILTER_XT_CONNMARK"),
    model.ConntrackState: _match("conntrack"),
    model.Comment: _match("comment"),
    model.Redirect: _target("REDIRECT"),
    model.SetMark: _target("MARK", "xt_mark", "NETFILTER_XT_MARK"),
    model.SaveMark: _CONNMARK,
    model.RestoreMark: _CONNMARK,
    model.TProxy: _target("TPROXY"),
    model.ConntrackZone: _target("CT"),
}

_NFT_CT = Feature("ct of nftables", "nft_ct", "NFT_CT")

#: What native rules need.
NATIVE_PARTS: Mapping[Kind, Feature] = {
    model.ConnectionMark: _NFT_CT,
    model.ConntrackState: _NFT_CT,
    model.SaveMark: _NFT_CT,
    model.RestoreMark: _NFT_CT,
    model.ConntrackZone: _NFT_CT,
    model.Redirect: Feature("redirect of nftables", "nft_redir", "NFT_REDIR"),
    model.TProxy: Feature("tproxy of nftables", "nft_tproxy", "NFT_TPROXY"),
}

#: What the tables themselves can do, without any part of its own.
PLAIN: frozenset[Kind] = frozenset(
    {
        model.InInterface,
        model.OutInterface,
        model.Source,
        model.Destination,
        model.Transport,
        model.Jump,
        model.Verdict,
    }
)

NF_TABLES = Feature("nf_tables", "nf_tables", "NF_TABLES")
NFT_COMPAT = Feature("iptables' matches and targets in nf_tables", "nft_compat", "NFT_COMPAT")
NFT_NAT = Feature("nat chains of nf_tables", "nft_chain_nat", "NFT_NAT")
CONNTRACK = Feature("connection tracking", "nf_conntrack", "NF_CONNTRACK")
NAT = Feature("translation of addresses", "nf_nat", "NF_NAT")

_LEGACY_PREFIX: Mapping[Family, tuple[str, str]] = {"ipv4": ("iptable", "IP"), "ipv6": ("ip6table", "IP6")}


def legacy_table(family: Family, table: TableName) -> Feature:
    """Return a legacy table as a part of the kernel."""
    module, option = _LEGACY_PREFIX[family]
    name = f"legacy table {table} ({family})"
    return Feature(name, f"{module}_{table}", f"{option}_NF_{table.upper()}", ("names", table))


class Evidence(Record):
    """What tells of the kernel's parts. None stands for what cannot be read.

    `listed`: by family, what /proc/net/ip_tables_names, _matches and _targets list. `loaded`: the modules
    that are loaded. `options`: the kernel's configuration, such as `y` or `m` by option, and `options_from`
    the file that has it. `modules`: those built in or installed, with True for built in.
    """

    release: str
    listed: Mapping[tuple[str, str], frozenset[str]] = {}
    loaded: frozenset[str] | None = None
    options: Mapping[str, str] | None = None
    modules: Mapping[str, bool] | None = None
    options_from: str = "/proc/config.gz"

    def presence(self, feature: Feature, families: Iterable[Family] = model.FAMILIES) -> Presence:
        """Tell whether the kernel has a part, for all of some families if it is listed by family."""
        if feature.listed and all(self._lists(family, *feature.listed) for family in families):
            return "there"
        if self.loaded and feature.module in self.loaded:
            return "there"
        if self.options is not None:
            return _BY_OPTION.get(self.options.get(feature.option, "n"), "absent")
        if self.modules is not None:
            built_in = self.modules.get(feature.module)
            return "absent" if built_in is None else "there" if built_in else "installed"
        return "unknown"

    def _lists(self, family: Family, what: str, name: str) -> bool:
        return name in self.listed.get((family, what), ())

    @property
    def source(self) -> str:
        """What an absent part is told by."""
        return self.options_from if self.options is not None else f"/lib/modules/{self.release}"


_BY_OPTION: Mapping[str, Presence] = {"y": "there", "m": "installed"}


def parts_of_rules(needs: Needs, location: Location) -> Iterator[tuple[Feature, tuple[Family, ...]]]:
    """Yield the parts that the rules' matches and targets need in a location, and the families that do."""
    parts = NATIVE_PARTS if location == NFTABLES else IPTABLES_PARTS
    found: dict[Feature, tuple[Family, ...]] = {}
    for family in needs.families:
        for kind in needs.kinds(family):
            if kind in parts and family not in found.get(parts[kind], ()):
                found[parts[kind]] = (*found.get(parts[kind], ()), family)
    yield from found.items()
    for part in (CONNTRACK, NAT):
        if needs.families:
            yield part, needs.families


def tables_of_rules(needs: Needs) -> Iterator[tuple[Family, TableName]]:
    """Yield the tables that have rules."""
    for family in needs.families:
        for table in needs.tables(family):
            yield family, table

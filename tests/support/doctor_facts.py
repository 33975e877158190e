"""doctor_facts: facts about a machine, as the checks of doctor get them."""

from __future__ import annotations

from typing import Any

from istio_iptables import Facts, build, configure, remedies
from istio_iptables.change.actions import Live, UnreadableTable
from istio_iptables.change.conflicts import Conflict
from istio_iptables.change.neighbours import Interference
from istio_iptables.doctor import examination
from istio_iptables.doctor.checks import network
from istio_iptables.doctor.checks.files import LockFile
from istio_iptables.doctor.checks.network import Forwarding
from istio_iptables.doctor.checks.programs import Commands, Nft
from istio_iptables.doctor.checks.rights import Rights
from istio_iptables.doctor.features import Evidence
from istio_iptables.doctor.model import Answer
from istio_iptables.doctor.needs import Needs
from istio_iptables.errors import KernelError, SettingsError
from istio_iptables.rules.model import (
    RETURN,
    Chain,
    Redirect,
    Rule,
    Table,
)

LEGACY: Any = "iptables-legacy"
NFT: Any = "iptables-nft"
NATIVE: Any = "nftables"


def needs(location: Any = LEGACY, *, ipv6: bool = False, **settings: Any) -> Needs:
    """Return what the rules of some settings need, where they go to a location (None: that is not known)."""
    config = configure(environment=Facts(ipv4=True, ipv6=True), dual_stack=ipv6, **settings)
    return Needs(build(config), location)


ALL = frozenset(("NET_ADMIN", "NET_RAW", "SETUID", "SETGID"))
ROOT = Rights(0, 0, ALL, ALL, ALL, False)
NOBODY = ROOT.replace(uid=1000, gid=1000, effective=frozenset(), permitted=frozenset())
CONTAINER = ROOT.replace(
    **dict.fromkeys(("effective", "permitted", "bounding"), frozenset(("NET_ADMIN", "NET_RAW")))
)
PROXY = ((1337,), (1337,))

LOCK = LockFile("/run/xtables.lock")
READ_ONLY = LOCK.replace(exists=False, problem=remedies.lock_not_opened(LOCK.path, "Read-only file system"))
PRINTED = "iptables-restore v1.8.9 (legacy)"
MISSING = Commands(missing=remedies.command_missing("iptables-legacy-restore"))
NO_NFT = Nft(installed=False)
NO_JSON = Nft(problem=KernelError("nft --json --version failed", remedies.NFT_WITH_JSON))
NO_LIBRARY = remedies.libiptc_missing("libip4tc.so.2: cannot open shared object file")
OLDEST = (1, 0, 1)

LOADED: Any = {"ipv4": True, "ipv6": True}
#: A kernel with everything built in, and one with nothing of netfilter.
FULL = Evidence(
    "6.18.1",
    options=dict.fromkeys(
        (
            *(f"{ip}_NF_{table}" for ip in ("IP", "IP6") for table in ("NAT", "MANGLE", "RAW")),
            *(f"NETFILTER_XT_MATCH_{m}" for m in ("OWNER", "MULTIPORT", "CONNTRACK", "COMMENT")),
            *(f"NETFILTER_XT_TARGET_{t}" for t in ("REDIRECT", "TPROXY", "CT")),
            *("NETFILTER_XTABLES", "NETFILTER_XT_MARK", "NETFILTER_XT_CONNMARK", "NF_CONNTRACK", "NF_NAT"),
            *("NF_TABLES", "NFT_COMPAT", "NFT_NAT", "NFT_CT", "NFT_REDIR", "NFT_TPROXY"),
        ),
        "y",
    ),
)
BARE = Evidence("6.18.1", options={})
SILENT = Evidence("6.18.1")


def without(*options: str) -> Evidence:
    assert FULL.options
    return FULL.replace(options={k: v for k, v in FULL.options.items() if k not in options})


UNREADABLE = Live({}, unreadable=(UnreadableTable("ipv4", "nat"),))
UNREADABLE_ERROR = remedies.tables_unreadable(UNREADABLE.unreadable, owned=False)
RULES = (Chain("OUTPUT", (Rule((), RETURN),)),)
OURS = (Chain("ISTIO_REDIRECT", (Rule((), Redirect(15001)),)),)


def live(**tables: Any) -> Live:
    """Return what is in place: chains of the table nat, by location without its hyphen."""
    named = {"legacy": LEGACY, "nft": NFT}
    return Live({named[key]: (Table("ipv4", "nat", chains),) for key, chains in tables.items()})


AMBIENT = Conflict("inet istio-ambient-prerouting")
FOREIGN = Conflict("ipv4 nat (iptables-legacy)", "ISTIO_OUTPUT", Rule((), RETURN))
BYPASS = Interference(
    "nftables table ip docker", "pre", "tcp dport 80 dnat to 1.2.3.4", "bypass", ("TCP to port 80",)
)


def settings(*warnings: str, mistakes: tuple[str, ...] = ()) -> Answer:
    """Return the answer about settings, which asks for nothing but the warnings."""

    class Here:
        @property
        def warnings(self) -> tuple[str, ...]:
            if mistakes:
                raise SettingsError(mistakes)
            return warnings

    return examination._settings(Here())  # type: ignore[arg-type]


def tproxy(**sysctls: Any) -> Answer:
    return network.rp_filter({"all": Forwarding(), "lo": Forwarding(), **sysctls}, tproxy=True)


def localnet(*interfaces: int) -> Answer:
    found = {f"eth{number}": Forwarding(route_localnet=value) for number, value in enumerate(interfaces)}
    return network.route_localnet(
        (("-j DNAT", "ipv4 nat"),), {"all": Forwarding(), "lo": Forwarding(), **found}
    )

"""doctor: what each check makes of facts that are given; tests/kernel/test_doctor.py makes them for real."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from istio_iptables import Facts, build, configure, remedies
from istio_iptables.change.actions import Live, UnreadableTable
from istio_iptables.change.conflicts import Conflict
from istio_iptables.change.foreign import Base, Neighbour, Step
from istio_iptables.change.neighbours import Interference
from istio_iptables.doctor import examination
from istio_iptables.doctor.checks import files, kernel, names, network, programs, rights, rules
from istio_iptables.doctor.checks.files import LockFile
from istio_iptables.doctor.checks.names import LookUp, ResolvConf
from istio_iptables.doctor.checks.network import Forwarding
from istio_iptables.doctor.checks.programs import Commands, Extensions, Library, Nft, version_of
from istio_iptables.doctor.checks.rights import Rights, UserNamespace
from istio_iptables.doctor.checks.rules import Difference
from istio_iptables.doctor.examination import CHECKS
from istio_iptables.doctor.features import Evidence, Feature, parts_of_rules
from istio_iptables.doctor.model import FAIL, OK, WARN, Answer, Result
from istio_iptables.doctor.needs import Needs
from istio_iptables.errors import KernelError, SettingsError
from istio_iptables.rules.model import (
    RETURN,
    Chain,
    ForeignTarget,
    InInterface,
    Redirect,
    Rule,
    Ruleset,
    Table,
)
from istio_iptables.rules.nftables.model import NativeTable
from istio_iptables.settings.resolve import IPV6_NOT_CAPTURED, NO_ADDRESS, NO_DNS_SERVER
from tests.support.cases import all_cases

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


#: A check, the answer that facts get, its status, and words of it.
CASES: list[tuple[str, Answer, str, str]] = [
    ("settings", settings(), OK, "each has an effect"),
    ("settings", settings(NO_ADDRESS, IPV6_NOT_CAPTURED, NO_DNS_SERVER), OK, "each has an effect"),
    ("settings", settings("--compact has no effect"), WARN, "--compact has no effect"),
    ("settings", settings(mistakes=("a: wrong", "b: wrong")), FAIL, "a: wrong"),
    ("network-namespace", network.namespace("", None), OK, "not set"),
    ("network-namespace", network.namespace("x", None), OK, "x was entered"),
    ("network-namespace", network.namespace("x", KernelError("not there", "see")), FAIL, "not there"),
    # rights
    ("capabilities", rights.capabilities(ROOT), OK, "NET_ADMIN and NET_RAW are effective"),
    ("capabilities", rights.capabilities(NOBODY), FAIL, "the capabilities NET_ADMIN and NET_RAW are missing"),
    (
        "capabilities",
        rights.capabilities(CONTAINER.replace(effective=frozenset(("NET_RAW",)))),
        FAIL,
        "NET_ADMIN: permitted, but not effective",
    ),
    ("capabilities", rights.capabilities(NOBODY), FAIL, "this is UID 1000"),
    (
        "capabilities",
        rights.capabilities(NOBODY.replace(bounding=frozenset())),
        FAIL,
        "NET_RAW: not in the bounding set",
    ),
    ("user", rights.user(ROOT, None), OK, "root"),
    ("user", rights.user(NOBODY, None), OK, "UID 1000"),
    ("user", rights.user(NOBODY, remedies.only_root_reads("/proc/x")), FAIL, "only root can read /proc/x"),
    ("no-new-privs", rights.no_new_privs(NOBODY), OK, "not set"),
    ("no-new-privs", rights.no_new_privs(ROOT.replace(no_new_privs=None)), OK, "does not tell"),
    ("no-new-privs", rights.no_new_privs(ROOT.replace(no_new_privs=True)), OK, "changes nothing"),
    ("no-new-privs", rights.no_new_privs(NOBODY.replace(no_new_privs=True)), WARN, "no_new_privs is set"),
    (
        "user-namespace",
        rights.user_namespace(UserNamespace(True), (1,), (1,), native=False),
        OK,
        "the machine",
    ),
    (
        "user-namespace",
        rights.user_namespace(UserNamespace(False, ((0, 65535),), ((0, 65535),), True), *PROXY, native=False),
        OK,
        "all UIDs and GIDs of the rules",
    ),
    (
        "user-namespace",
        rights.user_namespace(UserNamespace(False, ((0, 65535),), ((0, 65535),), False), *PROXY, native=True),
        FAIL,
        "belongs to another user namespace",
    ),
    (
        "user-namespace",
        rights.user_namespace(UserNamespace(False, ((0, 0),), ((0, 2000),), True), *PROXY, native=False),
        FAIL,
        "does not have UID 1337: the kernel refuses",
    ),
    (
        "user-namespace",
        rights.user_namespace(UserNamespace(False, ((0, 2000),), ((0, 0),), None), *PROXY, native=True),
        WARN,
        "does not have GID 1337",
    ),
    ("validation-rights", rights.validation_rights(CONTAINER, asked=False, proxy=((), ())), OK, "not set"),
    ("validation-rights", rights.validation_rights(ROOT, asked=True, proxy=PROXY), OK, "are effective"),
    (
        "validation-rights",
        rights.validation_rights(NOBODY.replace(uid=1337, gid=1337), asked=True, proxy=PROXY),
        OK,
        "the proxy's own",
    ),
    (
        "validation-rights",
        rights.validation_rights(CONTAINER, asked=True, proxy=PROXY),
        FAIL,
        "SETUID and SETGID",
    ),
    # programs
    ("backend", rules.backend("libiptc", "it is there", None), OK, "libiptc: it is there"),
    ("backend", rules.backend("", "no rules are made", None), OK, "no rules are made"),
    ("backend", rules.backend("", "", UNREADABLE_ERROR), FAIL, "cannot read the nft table ip nat"),
    ("libiptc", programs.libiptc(Library(True, True), needs(), forced=False), OK, "can be loaded"),
    ("libiptc", programs.libiptc(Library(True, True, NO_LIBRARY), needs(), forced=False), FAIL, "libip4tc"),
    (
        "libiptc",
        programs.libiptc(Library(True, True, NO_LIBRARY), needs(NFT), forced=False),
        OK,
        "only rules",
    ),
    (
        "libiptc",
        programs.libiptc(Library(True, True, NO_LIBRARY), needs(None), forced=False),
        WARN,
        "not known",
    ),
    (
        "libiptc",
        programs.libiptc(Library(False, False), needs(), forced=False),
        OK,
        "iptables-legacy-restore",
    ),
    ("libiptc", programs.libiptc(Library(False, False), needs(), forced=True), OK, "not needed"),
    (
        "iptables-legacy",
        programs.iptables_legacy(Commands(PRINTED), needs(), libiptc=False, cni_mode=False),
        OK,
        "v1.8.9",
    ),
    (
        "iptables-legacy",
        programs.iptables_legacy(MISSING, needs(), libiptc=False, cni_mode=False),
        FAIL,
        "iptables-legacy-restore is not installed",
    ),
    (
        "iptables-legacy",
        programs.iptables_legacy(MISSING, needs(), libiptc=True, cni_mode=False),
        OK,
        "libiptc writes the legacy tables without it",
    ),
    (
        "iptables-legacy",
        programs.iptables_legacy(MISSING, needs(NATIVE), libiptc=False, cni_mode=False),
        OK,
        "only rules in the legacy tables would need it",
    ),
    (
        "iptables-legacy",
        programs.iptables_legacy(
            Commands("iptables-restore v1.8.4 (legacy)", takes_the_lock=True),
            needs(),
            libiptc=False,
            cni_mode=False,
        ),
        FAIL,
        "v1.8.4 (legacy) does not know the variable XTABLES_LOCKFILE",
    ),
    (
        "iptables-legacy",
        programs.iptables_legacy(
            Commands("v1.8.4", takes_the_lock=True), needs(), libiptc=False, cni_mode=True
        ),
        OK,
        "v1.8.4",
    ),
    ("iptables-nft", programs.iptables_nft(Commands("v1.8.9"), needs(NFT)), OK, "v1.8.9"),
    ("iptables-nft", programs.iptables_nft(MISSING, needs(NFT)), FAIL, "is not installed"),
    ("iptables-nft", programs.iptables_nft(MISSING, needs()), OK, "only rules of iptables-nft would need it"),
    ("iptables-nft", programs.iptables_nft(MISSING, needs(None)), WARN, "where these go is not known"),
    (
        "extensions",
        programs.extensions(Extensions(("/x",)), needs(), by_command=False),
        OK,
        "not written by iptables-restore",
    ),
    (
        "extensions",
        programs.extensions(Extensions(()), needs(), by_command=True),
        WARN,
        "could not be checked",
    ),
    (
        "extensions",
        programs.extensions(Extensions(("/x",)), needs(), by_command=True),
        FAIL,
        "libxt_standard.so, libxt_tcp.so, libxt_REDIRECT.so, libxt_owner.so (/x)",
    ),
    (
        "extensions",
        programs.extensions(
            Extensions(
                ("/x",),
                frozenset(("libxt_standard.so", "libxt_tcp.so", "libipt_REDIRECT.so", "libxt_owner.so")),
            ),
            needs(),
            by_command=True,
        ),
        OK,
        "are in /x",
    ),
    ("nft", programs.nft(Nft("nftables v1.0.6 (Lester)"), needs(NATIVE), OLDEST), OK, "v1.0.6"),
    (
        "nft",
        programs.nft(Nft("nftables v1.0.0 (Fearless)"), needs(NATIVE), OLDEST),
        FAIL,
        "older than the rules",
    ),
    ("nft", programs.nft(Nft("nftables v0.9.8 (E.D.S.)"), needs(), OLDEST), OK, "only --native-nftables"),
    ("nft", programs.nft(NO_NFT, needs(), OLDEST), OK, "not installed: only --native-nftables"),
    ("nft", programs.nft(NO_NFT, needs(NATIVE), OLDEST), FAIL, "native nftables rules are in place or were"),
    (
        "nft",
        programs.nft(NO_NFT.replace(to_read=("ip nat",)), needs(), OLDEST),
        FAIL,
        "needed to read ip nat",
    ),
    ("nft", programs.nft(NO_JSON, needs(NATIVE), OLDEST), FAIL, "built with JSON support"),
    ("nft", programs.nft(NO_JSON, needs(), OLDEST), OK, "only --native-nftables"),
    ("nft", programs.nft(NO_JSON.replace(to_read=("ip6 nat",)), needs(), OLDEST), FAIL, "to read ip6 nat"),
    # the kernel
    ("legacy-tables", kernel.legacy_tables(needs(), FULL, LOADED), OK, "the kernel has nat (ipv4)"),
    (
        "legacy-tables",
        kernel.legacy_tables(needs(), FULL, {"ipv4": False, "ipv6": False}),
        FAIL,
        "has not loaded legacy iptables (ip_tables)",
    ),
    (
        "legacy-tables",
        kernel.legacy_tables(needs(ipv6=True), FULL, {"ipv4": True, "ipv6": False}),
        FAIL,
        "legacy ip6tables (ip6_tables)",
    ),
    (
        "legacy-tables",
        kernel.legacy_tables(needs(redirect_dns=True, capture_all_dns=True), without("IP_NF_RAW"), LOADED),
        FAIL,
        "no legacy table raw (ipv4) (iptable_raw), says /proc/config.gz",
    ),
    ("legacy-tables", kernel.legacy_tables(needs(), without("IP_NF_RAW"), LOADED), OK, "has nat"),
    ("legacy-tables", kernel.legacy_tables(needs(NFT), BARE, {"ipv4": False}), OK, "would need it"),
    ("nf-tables", kernel.nf_tables(needs(NFT), FULL, answers=True), OK, "the kernel has nf_tables"),
    ("nf-tables", kernel.nf_tables(needs(NFT), FULL, answers=False), FAIL, "the kernel has no nf_tables"),
    ("nf-tables", kernel.nf_tables(needs(), FULL, answers=False), OK, "only rules of iptables-nft"),
    ("nf-tables", kernel.nf_tables(needs(NFT), without("NFT_COMPAT"), answers=True), FAIL, "nft_compat"),
    ("nf-tables", kernel.nf_tables(needs(NATIVE), without("NFT_COMPAT"), answers=True), OK, "has nf_tables"),
    (
        "nf-tables",
        kernel.nf_tables(needs(NATIVE), FULL.replace(release="5.1.20-x"), answers=True),
        FAIL,
        "5.1.20",
    ),
    (
        "nf-tables",
        kernel.nf_tables(needs(NATIVE), FULL.replace(release="5.2.0"), answers=True),
        OK,
        "nf_tables",
    ),
    (
        "nf-tables",
        kernel.nf_tables(needs(NFT), FULL.replace(release="4.18.0"), answers=True),
        OK,
        "nf_tables",
    ),
    ("nf-tables", kernel.nf_tables(needs(NFT), SILENT, answers=None), WARN, "nf_tables (nf_tables)"),
    ("matches-and-targets", kernel.matches_and_targets(needs(), FULL), OK, "tcp, REDIRECT, owner"),
    (
        "matches-and-targets",
        kernel.matches_and_targets(needs(), without("NETFILTER_XT_MATCH_OWNER")),
        FAIL,
        "no match owner (xt_owner)",
    ),
    (
        "matches-and-targets",
        kernel.matches_and_targets(needs(NATIVE), without("NETFILTER_XT_MATCH_OWNER")),
        OK,
        "redirect of nftables",
    ),
    (
        "matches-and-targets",
        kernel.matches_and_targets(needs(NATIVE, interception_mode="TPROXY"), without("NFT_TPROXY")),
        FAIL,
        "nft_tproxy",
    ),
    (
        "matches-and-targets",
        kernel.matches_and_targets(needs(), without("NETFILTER_XT_TARGET_TPROXY")),
        OK,
        "has",
    ),
    ("matches-and-targets", kernel.matches_and_targets(needs(), SILENT), WARN, "nothing here tells"),
    (
        "matches-and-targets",
        kernel.matches_and_targets(Needs(Ruleset(), None), BARE),
        OK,
        "no rules are made",
    ),
    ("ipv6-nat", kernel.ipv6_nat(needs(), BARE, LOADED), OK, "IPv6 is not captured"),
    ("ipv6-nat", kernel.ipv6_nat(needs(ipv6=True), FULL, LOADED), OK, "has it"),
    ("ipv6-nat", kernel.ipv6_nat(needs(ipv6=True), without("IP6_NF_NAT"), LOADED), FAIL, "ip6table_nat"),
    ("ipv6-nat", kernel.ipv6_nat(needs(NFT, ipv6=True), without("IP6_NF_NAT"), LOADED), OK, "has it"),
    (
        "ipv6-nat",
        kernel.ipv6_nat(needs(NATIVE, ipv6=True), without("NFT_NAT"), LOADED),
        FAIL,
        "nft_chain_nat",
    ),
    # files
    ("lock-file", files.lock_file(LOCK, cni_mode=False), OK, "can be opened"),
    ("lock-file", files.lock_file(LOCK.replace(exists=False), cni_mode=False), OK, "can be made"),
    (
        "lock-file",
        files.lock_file(READ_ONLY, cni_mode=False),
        FAIL,
        "cannot be opened: Read-only file system",
    ),
    ("lock-file", files.lock_file(READ_ONLY, cni_mode=True), OK, "--cni-mode"),
    ("lock-held", files.lock_held((LOCK,), 10), OK, "free: /run/xtables.lock"),
    (
        "lock-held",
        files.lock_held((LOCK, LOCK.replace(holder="iptables (PID 7)", running=61.4)), 10),
        WARN,
        "held by iptables (PID 7): a run waits 10 seconds",
    ),
    (
        "lock-held",
        files.lock_held((LOCK.replace(holder="iptables (PID 7)", running=61.4),), 10),
        WARN,
        "started 61 seconds ago",
    ),
    ("dry-run-file", files.dry_run_file("", "", dry_run=True), OK, "not set"),
    (
        "dry-run-file",
        files.dry_run_file("/x", "Read-only", dry_run=False),
        OK,
        "not written without --dry-run",
    ),
    (
        "dry-run-file",
        files.dry_run_file("/x", "Read-only", dry_run=True),
        FAIL,
        "cannot be written: Read-only",
    ),
    ("dry-run-file", files.dry_run_file("/x", "", dry_run=True), OK, "can be written"),
    # the network
    ("addresses", network.addresses((True, False), dual_stack=False), OK, "IPv4 only"),
    ("addresses", network.addresses((True, False), dual_stack=True), OK, "no IPv6 for --dual-stack"),
    ("addresses", network.addresses((False, True), dual_stack=False), OK, "IPv6 only"),
    ("addresses", network.addresses((True, True), dual_stack=True), OK, "both captured"),
    ("addresses", network.addresses((True, True), dual_stack=False), WARN, IPV6_NOT_CAPTURED),
    ("addresses", network.addresses((False, False), dual_stack=False), WARN, NO_ADDRESS),
    ("interfaces", network.interfaces(()), OK, "exist"),
    ("interfaces", network.interfaces(("-c: no interface", "-k: no interface")), WARN, "-c: no interface"),
    ("ipv6-disabled", network.ipv6_disabled(None, captured=False, dual_stack=True), OK, "no IPv6"),
    ("ipv6-disabled", network.ipv6_disabled(None, captured=True, dual_stack=True), FAIL, "no IPv6"),
    ("ipv6-disabled", network.ipv6_disabled({"lo": "0"}, captured=True, dual_stack=True), OK, "switched on"),
    (
        "ipv6-disabled",
        network.ipv6_disabled({"lo": "1"}, captured=True, dual_stack=False),
        FAIL,
        "off for lo",
    ),
    (
        "ipv6-disabled",
        network.ipv6_disabled({"lo": "1"}, captured=False, dual_stack=False),
        OK,
        "not captured",
    ),
    (
        "ipv6-disabled",
        network.ipv6_disabled({"all": "1"}, captured=False, dual_stack=True),
        WARN,
        "--dual-stack",
    ),
    ("rp-filter", network.rp_filter({"all": Forwarding(src_valid_mark=1)}, tproxy=False), OK, "not needed"),
    ("rp-filter", tproxy(eth0=Forwarding()), OK, "src_valid_mark 0"),
    ("rp-filter", tproxy(all=Forwarding(rp_filter=1), eth0=Forwarding(rp_filter=1)), OK, "rp_filter is 1"),
    ("rp-filter", tproxy(lo=Forwarding(src_valid_mark=1), eth0=Forwarding()), OK, "pass"),
    ("rp-filter", tproxy(all=Forwarding(src_valid_mark=1), eth0=Forwarding()), FAIL, "from eth0: src_valid"),
    ("rp-filter", tproxy(eth0=Forwarding(), eth1=Forwarding(src_valid_mark=1)), FAIL, "from eth1: src"),
    ("rp-filter", tproxy(eth0=Forwarding(src_valid_mark=1, accept_local=1)), OK, "pass"),
    ("rp-filter", tproxy(eth0=Forwarding(1, src_valid_mark=1, accept_local=1)), FAIL, "eth0"),
    ("rp-filter", tproxy(eth0=Forwarding(2, src_valid_mark=1, accept_local=1)), OK, "pass"),
    ("route-localnet", network.route_localnet((), {"eth0": Forwarding()}), OK, "not needed"),
    ("route-localnet", localnet(1, 1), OK, "every interface"),
    ("route-localnet", localnet(1, 0), WARN, "drops from eth1"),
    ("ip-forward", network.ip_forward((), ("ipv4",), ipv4=False, ipv6=False), OK, "not needed"),
    ("ip-forward", network.ip_forward(("vm0",), ("ipv4",), ipv4=True, ipv6=False), OK, "on"),
    (
        "ip-forward",
        network.ip_forward(("vm0",), ("ipv4",), ipv4=False, ipv6=True),
        WARN,
        "net.ipv4.ip_forward is 0",
    ),
    (
        "ip-forward",
        network.ip_forward(("vm0",), ("ipv4", "ipv6"), ipv4=True, ipv6=False),
        WARN,
        "all.forwarding",
    ),
    ("routing", network.routing((), ()), OK, "neither TPROXY nor IPv6"),
    ("routing", network.routing((), ("ip rule add",)), OK, "nothing is in the way"),
    (
        "routing",
        network.routing((remedies.route_in_the_way(133, "ipv4"),), ("x",)),
        FAIL,
        "routing table 133",
    ),
    # names
    (
        "resolv-conf",
        names.resolv_conf(ResolvConf(), redirect_dns=False, capture_all=False, bad=()),
        OK,
        "not set",
    ),
    (
        "resolv-conf",
        names.resolv_conf(ResolvConf(), redirect_dns=True, capture_all=True, bad=()),
        OK,
        "any server",
    ),
    (
        "resolv-conf",
        names.resolv_conf(ResolvConf(("10.0.0.10",)), redirect_dns=True, capture_all=False, bad=()),
        OK,
        "DNS servers: 10.0.0.10",
    ),
    (
        "resolv-conf",
        names.resolv_conf(ResolvConf(), redirect_dns=True, capture_all=False, bad=()),
        WARN,
        "names no server",
    ),
    (
        "resolv-conf",
        names.resolv_conf(
            ResolvConf(problem=KernelError("/etc/resolv.conf cannot be read", "put a file there")),
            redirect_dns=True,
            capture_all=False,
            bad=(),
        ),
        FAIL,
        "cannot be read",
    ),
    (
        "resolv-conf",
        names.resolv_conf(ResolvConf(missing=True), redirect_dns=True, capture_all=False, bad=()),
        WARN,
        "is missing",
    ),
    (
        "resolv-conf",
        names.resolv_conf(ResolvConf(("x",)), redirect_dns=True, capture_all=False, bad=("x",)),
        WARN,
        "'x' is not an address",
    ),
    ("name-lookup", names.name_lookup(()), OK, "no user or group"),
    ("name-lookup", names.name_lookup((LookUp("istio-proxy", 0.002),)), OK, "no such name, in 2 ms"),
    ("name-lookup", names.name_lookup((LookUp("a", 0.9, 7),)), OK, "'a': 7"),
    ("name-lookup", names.name_lookup((LookUp("a", 1.2, 7), LookUp("b", 1.1))), WARN, "2.3 seconds"),
    ("name-lookup", names.name_lookup((LookUp("a", problem="ended its process (-11)"),)), WARN, "(-11)"),
    # what is in place
    ("ambient-mode", rules.ambient_mode((FOREIGN,)), OK, "not in place"),
    ("ambient-mode", rules.ambient_mode((AMBIENT,)), FAIL, "ambient mode has rules"),
    ("chains-of-others", rules.chains_of_others((AMBIENT,)), OK, "nothing foreign"),
    ("chains-of-others", rules.chains_of_others((FOREIGN,)), FAIL, "-A ISTIO_OUTPUT -j RETURN"),
    ("unreadable-table", rules.unreadable_table(Live({}), LEGACY, problem=None), OK, "none"),
    (
        "unreadable-table",
        rules.unreadable_table(UNREADABLE, LEGACY, problem=None),
        WARN,
        "go to iptables-legacy",
    ),
    ("unreadable-table", rules.unreadable_table(UNREADABLE, NFT, problem=UNREADABLE_ERROR), FAIL, "ip nat"),
    ("two-backends", rules.two_backends(Live({}), {}), OK, "no rules are in place"),
    ("two-backends", rules.two_backends(live(legacy=RULES), {}), OK, "rules are in iptables-legacy only"),
    ("two-backends", rules.two_backends(live(legacy=RULES, nft=RULES), {}), WARN, "nf_tables: ip nat"),
    ("two-backends", rules.two_backends(live(legacy=RULES), {NFT: ("inet fw",)}), WARN, "nf_tables: inet fw"),
    (
        "two-backends",
        rules.two_backends(live(nft=RULES), {NFT: ("inet fw",)}),
        OK,
        "rules are in nf_tables only",
    ),
    ("two-backends", rules.two_backends(live(nft=RULES), {LEGACY: ("ipv4 filter",)}), WARN, "ipv4 filter"),
    ("two-backends", rules.two_backends(live(legacy=OURS, nft=OURS), {}), WARN, "more than one place"),
    (
        "two-backends",
        rules.two_backends(live(nft=OURS).replace(native=(NativeTable("istio-proxy-nat", ()),)), {}),
        WARN,
        "iptables-nft, nftables",
    ),
    ("rules-in-place", rules.rules_in_place(Difference(False, ()), (), replaces=False), OK, "no rules"),
    (
        "rules-in-place",
        rules.rules_in_place(Difference(True, ()), (), replaces=False),
        OK,
        "those of the settings",
    ),
    (
        "rules-in-place",
        rules.rules_in_place(Difference(True, ("nat",)), (), replaces=True),
        OK,
        "the run replaces them",
    ),
    (
        "rules-in-place",
        rules.rules_in_place(Difference(True, ("nat",)), (), replaces=False),
        FAIL,
        "exit code 3",
    ),
    ("rules-in-place", rules.rules_in_place(None, (), replaces=False), WARN, "could not be checked"),
    (
        "rules-in-place",
        rules.rules_in_place(Difference(True, ("nat",)), (FOREIGN,), replaces=True),
        WARN,
        "could not be checked",
    ),
    ("foreign-rules", rules.foreign_rules(()), OK, "none"),
    ("foreign-rules", rules.foreign_rules((BYPASS,)), WARN, "bypasses the proxy: TCP to port 80"),
]


@all_cases(
    ("name", "answer", "status", "words"),
    CASES,
    ids=[f"{case[0]}-{case[2]}-{n}" for n, case in enumerate(CASES)],
)
def test_an_answer(name: str, answer: Answer, status: str, words: str) -> None:
    assert answer.status == status, answer
    assert words in " ".join((answer.finding, answer.remedy, *answer.details))
    if status == FAIL:
        assert answer.remedy, "what fails has a remedy"


def test_every_check_has_its_cases() -> None:
    """Each can be OK, and something else too."""
    found = {name: {case[2] for case in CASES if case[0] == name} for name, *_ in CASES}
    assert found.keys() == {check.name for check in CHECKS}
    assert all(OK in statuses and len(statuses) > 1 for statuses in found.values())


# --- what the kernel has ----------------------------------------------------------------------

OWNER = Feature("match owner", "xt_owner", "NETFILTER_XT_MATCH_OWNER", ("matches", "owner"))


@all_cases(
    ("evidence", "presence"),
    [
        (Evidence("6.1"), "unknown"),
        (Evidence("6.1", listed={("ipv4", "matches"): frozenset(("owner",))}), "unknown"),
        (
            Evidence("6.1", {(f, "matches"): frozenset(("owner",)) for f in ("ipv4", "ipv6")}, options={}),
            "there",
        ),
        (Evidence("6.1", loaded=frozenset(("xt_owner",)), options={}), "there"),
        (Evidence("6.1", loaded=frozenset(("xt_mark",))), "unknown"),
        (Evidence("6.1", options={"NETFILTER_XT_MATCH_OWNER": "y"}), "there"),
        (Evidence("6.1", options={"NETFILTER_XT_MATCH_OWNER": "m"}), "installed"),
        (Evidence("6.1", options={}), "absent"),
        (Evidence("6.1", modules={"xt_owner": True}), "there"),
        (Evidence("6.1", modules={"xt_owner": False}), "installed"),
        (Evidence("6.1", modules={}), "absent"),
    ],
)
def test_what_tells_of_a_part_of_the_kernel(evidence: Evidence, presence: str) -> None:
    assert evidence.presence(OWNER) == presence


def test_a_part_that_is_listed_for_the_family_in_question_is_there() -> None:
    evidence = Evidence("6.1", {("ipv4", "matches"): frozenset(("owner",))}, options={})
    assert (evidence.presence(OWNER, ("ipv4",)), evidence.presence(OWNER, ("ipv6",))) == ("there", "absent")


def test_a_module_that_is_not_loaded_is_no_obstacle() -> None:
    evidence = FULL.replace(options={**dict(FULL.options or {}), "NETFILTER_XT_MATCH_OWNER": "m"})
    answer = kernel.matches_and_targets(needs(), evidence)
    assert answer.status == OK
    assert "not loaded yet: match owner (xt_owner)" in answer.details[0]


def test_the_parts_are_those_of_the_settings() -> None:
    def modules(location: Any, **more: Any) -> set[str]:
        return {part.module for part, _ in parts_of_rules(needs(location, **more), location)}

    plain = {"xt_tcpudp", "xt_REDIRECT", "xt_owner", "nf_conntrack", "nf_nat"}
    assert modules(LEGACY) == modules(NFT) == plain
    everything: dict[str, Any] = {
        "interception_mode": "TPROXY",
        "redirect_dns": True,
        "capture_all_dns": True,
        "drop_invalid": True,
    }
    more = {"xt_TPROXY", "xt_CT", "xt_conntrack", "xt_mark", "xt_connmark", "xt_multiport", "xt_comment"}
    assert modules(LEGACY, **everything) == plain | more
    assert modules(NATIVE, **everything) == {"nft_redir", "nft_tproxy", "nft_ct", "nf_conntrack", "nf_nat"}


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("nftables v1.0.6 (Lester Gooch #5)", (1, 0, 6)),
        ("iptables-restore v1.8.11 (nf_tables)", (1, 8, 11)),
        ("nftables v1.1 (x)", (1, 1)),
        ("no version here", ()),
        ("", ()),
    ],
)
def test_versions_that_programs_print(printed: str, version: tuple[int, ...]) -> None:
    assert version_of(printed) == version


# --- foreign rules that send packets to 127.0.0.0/8 -------------------------------------------


def of_foreign(*bases: Base, **chains: tuple[Step, ...]) -> tuple[tuple[str, str], ...]:
    return rules.to_loopback([Neighbour("table ip x", "ipv4", "nat", bases, tuple(chains.items()))])


def test_rules_to_the_loopback_network_are_found_through_chains() -> None:
    dnat = Step(
        Rule((), ForeignTarget(("-j", "DNAT", "--to-destination", "127.0.0.1:80"))),
        "translate",
        (),
        "127.0.0.1:80",
    )
    calls = Step("jump a", "jump", chains=("a",))
    again = Step("jump a", "jump", chains=("a",))
    found = of_foreign(Base("pre", "PREROUTING", None, (calls,)), a=(again, dnat), unused=(dnat,))
    assert found == (("a: -j DNAT --to-destination 127.0.0.1:80", "table ip x"),)


@pytest.mark.parametrize(
    ("hook", "step"),
    [
        ("OUTPUT", Step("dnat", "translate", (), "127.0.0.1:15053")),
        ("PREROUTING", Step("dnat", "translate", (), "172.17.0.2:80")),
        ("PREROUTING", Step("dnat", "translate", (InInterface("lo"),), "127.0.0.1:80")),
        ("PREROUTING", Step("redirect", "translate", (), "port 80")),
    ],
)
def test_rules_that_need_no_route_localnet(hook: str, step: Step) -> None:
    assert of_foreign(Base("c", hook, None, (step,))) == ()


# --- how the checks are made ------------------------------------------------------------------


def examined(monkeypatch: pytest.MonkeyPatch, examine: Any, **here: Any) -> Result:
    check = examination.Check("a-check", examine, of_namespace=True)
    monkeypatch.setattr(examination, "CHECKS", (check,))
    operation = SimpleNamespace(dry_run=here.pop("dry_run", False))
    (result,) = examination.examine(
        SimpleNamespace(**{"writes": True, "not_entered": None, "operation": operation, **here})  # type: ignore[arg-type]
    )
    return result


@pytest.mark.parametrize(
    ("error", "finding", "remedy"),
    [
        (KernelError("no", "do"), "could not be checked: no", "do"),
        (FileNotFoundError(2, "No such file", "/a"), "could not be checked: /a: No such file", ""),
        (OSError("odd"), "could not be checked: odd", ""),
        (SettingsError(["a: wrong"]), "could not be checked: the settings cannot be used here: a: wrong", ""),
        (
            ValueError("x\ny"),
            "could not be checked: unexpected ValueError x y: bug in istio-iptables",
            "please report it",
        ),
    ],
)
def test_what_keeps_a_check_from_being_made_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, error: Exception, finding: str, remedy: str
) -> None:
    def examine(_: object) -> Answer:
        raise error

    result = examined(monkeypatch, examine)
    assert (result.status, result.finding, result.remedy) == (WARN, finding, remedy)
    assert result.anchor == "docs/doctor.md#a-check"


def test_a_run_that_leaves_the_rules_alone_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    dry = examined(monkeypatch, lambda _: Answer(FAIL, "x"), writes=False, dry_run=True)
    assert (dry.status, dry.finding) == (OK, "not needed: --dry-run leaves the rules alone")
    skipped = examined(monkeypatch, lambda _: Answer(FAIL, "x"), writes=False)
    assert (skipped.status, skipped.finding) == (OK, "not needed: --skip-rule-apply leaves the rules alone")


def test_a_namespace_that_was_not_entered_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    result = examined(monkeypatch, lambda _: Answer(OK, "x"), not_entered=KernelError("no"))
    assert (result.status, result.finding.partition(":")[0]) == (WARN, "could not be checked")

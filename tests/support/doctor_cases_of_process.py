"""doctor_cases_of_process: what doctor's checks of settings, rights and programs make of facts."""

from __future__ import annotations

from istio_iptables import remedies
from istio_iptables.doctor.checks import network, programs, rights, rules
from istio_iptables.doctor.checks.programs import Commands, Extensions, Library, Nft
from istio_iptables.doctor.checks.rights import UserNamespace
from istio_iptables.doctor.model import FAIL, OK, WARN, Answer
from istio_iptables.errors import KernelError
from istio_iptables.settings.resolve import IPV6_NOT_CAPTURED, NO_ADDRESS, NO_DNS_SERVER
from tests.support.doctor_facts import (
    CONTAINER,
    MISSING,
    NATIVE,
    NFT,
    NO_JSON,
    NO_LIBRARY,
    NO_NFT,
    NOBODY,
    OLDEST,
    PRINTED,
    PROXY,
    ROOT,
    UNREADABLE_ERROR,
    needs,
    settings,
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
    ("libiptc", programs.libiptc(Library(), needs(), forced=False), OK, "can be loaded"),
    ("libiptc", programs.libiptc(Library(error=NO_LIBRARY), needs(), forced=False), FAIL, "libip4tc"),
    (
        "libiptc",
        programs.libiptc(Library(error=NO_LIBRARY), needs(NFT), forced=False),
        OK,
        "only rules",
    ),
    (
        "libiptc",
        programs.libiptc(Library(error=NO_LIBRARY), needs(None), forced=False),
        WARN,
        "not known",
    ),
    (
        "libiptc",
        programs.libiptc(Library("libip4tc.so.2 is not there"), needs(), forced=False),
        OK,
        "iptables-legacy-restore",
    ),
    (
        "libiptc",
        programs.libiptc(Library("no libip4tc.so.2"), needs(), forced=True),
        OK,
        "not needed",
    ),
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
    ("nft", programs.nft(Nft("nftables v1.0.6 (Lester)"), OLDEST), OK, "v1.0.6"),
    ("nft", programs.nft(Nft("nftables v1.0.0 (Fearless)", to_read=("ip nat",)), OLDEST), FAIL, "too old"),
    ("nft", programs.nft(Nft("nftables v0.9.8 (E.D.S.)"), OLDEST), OK, "only tables with rules of other"),
    ("nft", programs.nft(NO_NFT, OLDEST), OK, "not installed: only tables with rules of other programs"),
    (
        "nft",
        programs.nft(NO_NFT.replace(to_read=("ip nat",)), OLDEST),
        FAIL,
        "the table ip nat has something",
    ),
    ("nft", programs.nft(NO_JSON, OLDEST), OK, "only tables with rules of other programs"),
    ("nft", programs.nft(NO_JSON.replace(to_read=("ip6 nat",)), OLDEST), FAIL, "to read ip6 nat"),
]

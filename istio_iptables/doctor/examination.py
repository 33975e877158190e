"""examination: all checks in the order of the report, and how they are made.

No check depends on another: what one cannot read is a warning of its own.
"""

from __future__ import annotations

from ..change.actions import IPTABLES_LEGACY, IPTABLES_NFT, NFTABLES
from ..errors import KernelError, SettingsError
from ..kernel.interfaces import missing as missing_interfaces
from ..kernel.lock import WAIT_LIMIT
from ..kernel.nft_command import OLDEST
from ..settings.parsers import host_cidr
from ..settings.resolve import is_of_the_machine
from ..startup.record import Record
from .checks import files, names, network, programs, rights, rules
from .checks import kernel as kernel_checks
from .live import files as live_files
from .live import kernel as live_kernel
from .live import names as live_names
from .live import network as live_network
from .live import process
from .live import programs as live_programs
from .model import Answer, Result, bad, doubtful, fine, refused, unchecked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .live.here import Here


class Check(Record):
    """A check: its name, which is the anchor of its section in docs/doctor.md, and what it does.

    `of_namespace`: it looks at the network namespace of the settings. `of_writing`: it does not matter to a
    run that neither reads nor writes rules. `of_node`: what it finds is the same for all pods of a node:
    what a process may do there, its programs, its kernel.
    """

    name: str
    examine: Callable[[Here], Answer]
    of_namespace: bool = False
    of_writing: bool = True
    of_node: bool = False


def examine(here: Here) -> tuple[Result, ...]:
    """Make all checks."""
    return tuple(Result.of(check.name, answer(check, here)) for check in CHECKS)


def answer(check: Check, here: Here) -> Answer:
    """Make one check; what keeps it from being made is an answer too."""
    if check.of_writing and not here.writes:
        option = "--dry-run" if here.operation.dry_run else "--skip-rule-apply"
        return fine(f"not needed: {option} leaves the rules alone")
    if check.of_namespace and here.not_entered:
        return unchecked("the network namespace of the settings could not be entered")
    try:
        return check.examine(here)
    except KernelError as error:
        return unchecked(error.cause, error.remedy)
    except SettingsError as error:
        return unchecked(f"the settings cannot be used here: {error.mistakes[0]}")
    except OSError as error:
        return unchecked(_of_system(error))
    except Exception as error:  # a check must not keep the others from being made
        what = " ".join(f"{type(error).__name__} {error}".split())
        return unchecked(f"unexpected {what}: bug in istio-iptables", "please report it")


def _of_system(error: OSError) -> str:
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename else what


# --- rights ---------------------------------------------------------------------------------


def _validation_rights(here: Here) -> Answer:
    asked = here.operation.run_validation and not here.operation.dry_run
    proxy = (here.uids, here.config.proxy_gids) if asked else ((), ())
    return rights.validation_rights(here.rights, asked=asked, proxy=proxy)


def _user_namespace(here: Here) -> Answer:
    found = process.user_namespace()
    if found.initial:
        return rights.user_namespace(found, (), (), native=None)
    native = here.needs.location == NFTABLES
    return rights.user_namespace(found, here.uids, here.gids, native=native)


# --- programs and libraries -----------------------------------------------------------------


def _backend(here: Here) -> Answer:
    """A run begins by reading what is in place: what keeps that from being read makes it fail."""
    try:
        found = here.in_place
    except KernelError as error:
        return refused(error)
    except OSError as error:
        return bad(_of_system(error), "")
    if here.choice is None:
        return rules.backend("", "", found.unplanned)
    return rules.backend(here.choice.backend, here.choice.why, None)


def _iptables_legacy(here: Here) -> Answer:
    return programs.iptables_legacy(
        live_programs.commands(IPTABLES_LEGACY, here.families),
        here.needs,
        libiptc=here.uses_libiptc,
        cni_mode=here.operation.cni_mode,
    )


def _libiptc(here: Here) -> Answer:
    found = live_programs.library(here.families, chosen=here.uses_libiptc)
    return programs.libiptc(found, here.needs, forced=here.forced)


def _extensions(here: Here) -> Answer:
    by_command = here.needs.location != NFTABLES and not here.uses_libiptc and bool(here.wanted.tables)
    return programs.extensions(live_programs.extensions(), here.needs, by_command=by_command)


# --- the kernel -----------------------------------------------------------------------------


def _legacy_tables(here: Here) -> Answer:
    return kernel_checks.legacy_tables(here.needs, here.evidence, live_kernel.interface())


def _ipv6_nat(here: Here) -> Answer:
    return kernel_checks.ipv6_nat(here.needs, here.evidence, live_kernel.interface())


# --- the network namespace ------------------------------------------------------------------


def _ipv6_disabled(here: Here) -> Answer:
    return network.ipv6_disabled(
        live_network.ipv6_disabled(),
        captured=here.config.ipv6,
        dual_stack=here.parsed.values["dual_stack"],
    )


def _route_localnet(here: Here) -> Answer:
    return network.route_localnet(rules.to_loopback(here.in_place.foreign), live_network.forwarding())


def _ip_forward(here: Here) -> Answer:
    ipv4, ipv6 = live_network.forwards()
    config = here.config
    return network.ip_forward(config.rerouted_interfaces, config.families, ipv4=ipv4, ipv6=ipv6)


def _routing(here: Here) -> Answer:
    wanted = here.wanted.routing
    return network.routing(live_network.obstacles(wanted), wanted)


def _resolv_conf(here: Here) -> Answer:
    found = live_names.resolv_conf()
    return names.resolv_conf(
        found,
        redirect_dns=here.parsed.values["redirect_dns"],
        capture_all=here.parsed.values["capture_all_dns"],
        bad=[text for text in found.servers if host_cidr(text) is None],
    )


# --- what is in place -----------------------------------------------------------------------


def _rules_in_place(here: Here) -> Answer:
    found = here.in_place
    replaces = here.operation.reconcile or here.operation.cleanup_only
    return rules.rules_in_place(found.difference, found.conflicts, replaces=replaces)


def _foreign_rules(here: Here) -> Answer:
    return rules.foreign_rules(here.in_place.neighbours)


# --- the settings ---------------------------------------------------------------------------


def _settings(here: Here) -> Answer:
    try:
        warnings = [text for text in here.warnings if not is_of_the_machine(text)]
    except SettingsError as error:
        first, *others = error.mistakes
        return bad(first, "correct the settings: a run ends with exit code 2", *others)
    if warnings:
        return doubtful(warnings[0], "see docs/troubleshooting.md#messages", *warnings[1:])
    return fine("each has an effect")


CHECKS: tuple[Check, ...] = (
    Check("settings", _settings, of_writing=False),
    Check(
        "network-namespace",
        lambda here: network.namespace(here.operation.network_namespace, here.not_entered),
        of_writing=False,
    ),
    # rights
    Check("capabilities", lambda here: rights.capabilities(here.rights), of_node=True),
    Check("user", lambda here: rights.user(here.rights, here.legacy_list_problem), of_node=True),
    Check("no-new-privs", lambda here: rights.no_new_privs(here.rights)),
    Check("user-namespace", _user_namespace, of_namespace=True, of_node=True),
    Check("validation-rights", _validation_rights, of_writing=False),
    # programs and libraries
    Check("backend", _backend, of_namespace=True, of_node=True),
    Check("libiptc", _libiptc, of_node=True),
    Check("iptables-legacy", _iptables_legacy, of_node=True),
    Check(
        "iptables-nft",
        lambda here: programs.iptables_nft(live_programs.commands(IPTABLES_NFT, here.families), here.needs),
        of_node=True,
    ),
    Check("extensions", _extensions, of_node=True),
    Check("nft", lambda here: programs.nft(live_programs.nft(here.for_nft), OLDEST), of_node=True),
    # the kernel
    Check("legacy-tables", _legacy_tables, of_node=True),
    Check(
        "nf-tables",
        lambda here: kernel_checks.nf_tables(here.needs, here.evidence, answers=here.nftables_answer),
        of_node=True,
    ),
    Check(
        "matches-and-targets",
        lambda here: kernel_checks.matches_and_targets(here.needs, here.evidence),
        of_node=True,
    ),
    Check("ipv6-nat", _ipv6_nat, of_node=True),
    # files
    Check(
        "lock-file",
        lambda here: files.lock_file(live_files.xtables_lock(), cni_mode=here.operation.cni_mode),
    ),
    Check(
        "lock-held",
        lambda here: files.lock_held(live_files.locks(cni_mode=here.operation.cni_mode), WAIT_LIMIT),
    ),
    Check(
        "dry-run-file",
        lambda here: files.dry_run_file(
            here.operation.dry_run_file,
            live_files.why_not_written(here.operation.dry_run_file),
            dry_run=here.operation.dry_run,
        ),
        of_writing=False,
    ),
    # the network namespace
    Check(
        "addresses",
        lambda here: network.addresses(here.usable, dual_stack=here.parsed.values["dual_stack"]),
        of_namespace=True,
        of_writing=False,
    ),
    Check("interfaces", lambda here: network.interfaces(missing_interfaces(here.parsed)), of_namespace=True),
    Check("ipv6-disabled", _ipv6_disabled, of_namespace=True, of_node=True),
    Check(
        "rp-filter",
        lambda here: network.rp_filter(live_network.forwarding(), tproxy=here.config.tproxy),
        of_namespace=True,
    ),
    Check("route-localnet", _route_localnet, of_namespace=True),
    Check("ip-forward", _ip_forward, of_namespace=True),
    Check("routing", _routing, of_namespace=True),
    # names
    Check("resolv-conf", _resolv_conf, of_writing=False),
    Check("name-lookup", lambda here: names.name_lookup(here.look_ups), of_writing=False),
    # what is in place
    Check("ambient-mode", lambda here: rules.ambient_mode(here.in_place.conflicts), of_namespace=True),
    Check(
        "chains-of-others", lambda here: rules.chains_of_others(here.in_place.conflicts), of_namespace=True
    ),
    Check(
        "unreadable-table",
        lambda here: rules.unreadable_table(
            here.in_place.live, here.needs.location, problem=here.in_place.unplanned
        ),
        of_namespace=True,
    ),
    Check(
        "two-backends",
        lambda here: rules.two_backends(here.in_place.live, here.in_place.others),
        of_namespace=True,
    ),
    Check("rules-in-place", _rules_in_place, of_namespace=True),
    Check("foreign-rules", _foreign_rules, of_namespace=True),
)

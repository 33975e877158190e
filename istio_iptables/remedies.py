"""remedies: the errors for what is missing or in the way, with what to do about it, each written once.

A command that meets the obstacle raises the error. `doctor`, which looks for obstacles before a command meets
them, shows the same text. It is imported when there is something to say, so the plain call does not pay.
"""

from __future__ import annotations

import errno
import os

from .errors import Busy, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

INSTALL_IPTABLES = "install the package iptables"
INSTALL_NFTABLES = "install the package nftables"

# --- rights ---------------------------------------------------------------------------------


def capabilities_missing(names: Sequence[str]) -> KernelError:
    """Return the error of a process without some of the capabilities that reading and writing rules takes."""
    return KernelError(
        f"the capability {names[0]} is missing"
        if len(names) == 1
        else f"the capabilities {' and '.join(names)} are missing",
        "run as root, or give the container securityContext.capabilities.add: [NET_ADMIN, NET_RAW] "
        "and runAsUser: 0 (--dry-run needs neither)",
    )


def only_root_reads(path: str) -> KernelError:
    """Return the error of a user who may not read which legacy tables there are."""
    return KernelError(
        f"only root can read {path}, the kernel's list of legacy tables",
        "run as root (securityContext.runAsUser: 0); the capabilities alone are not enough",
    )


def become(proxy: str) -> str:
    """Return what to do where the validation cannot connect as the proxy; `proxy` is its user."""
    return (
        f"add the capabilities SETUID and SETGID to the container, or validate as {proxy}, as Istio does "
        "(--run-validation --skip-rule-apply)"
    )


# --- the system -----------------------------------------------------------------------------

#: What to do about an error of a system call that can come anywhere: something has run out.
_SCARCE = {
    errno.EMFILE: "raise the limit of open files of this process (`ulimit -n` shows it), then run again",
    errno.ENFILE: "raise the machine's limit of open files (sysctl fs.file-max), or end what has many open",
    errno.EAGAIN: "raise the limit of processes (`ulimit -u`, or pids.max of the container), then run again",
    errno.ENOMEM: "give it more memory (resources.limits.memory of the container), then run again",
    errno.ENOBUFS: "give it more memory (resources.limits.memory of the container), then run again",
    errno.ENOSPC: "free space or inodes on the file system, or raise the kernel's limit, then run again",
}
_ANOTHER = (
    "run again; if it stays so, the kernel's log (`dmesg`) or `strace -f` show what the system refuses, "
    "and a seccomp profile or security module may be why"
)
#: For what only root may do, in the user namespace that owns the network namespace (user_namespaces(7)).
NOT_PERMITTED = (
    "run as root, in the pod's user namespace or outside of user namespaces (hostUsers), and see whether a "
    "seccomp profile or security module forbids it"
)
#: If a signal has ended a process.
KILLED = (
    "run again; if it stays so, see in the kernel's log (`dmesg`) what ended it: "
    "too little memory (resources.limits.memory), or a seccomp profile"
)


def is_scarce(number: int | None) -> bool:
    """Tell whether an errno says that something has run out: files, processes, memory."""
    return number in _SCARCE


def of_errno(number: int | None) -> str:
    """Return what to do about a system call that failed with an errno, whatever it was for."""
    if number in (errno.EPERM, errno.EACCES):
        return NOT_PERMITTED
    return _SCARCE.get(number or 0, _ANOTHER)


def of_message(message: str) -> str:
    """Return what to do if a program's message, or how it ended, tells what has run out; else nothing."""
    if "a signal ended it" in message:
        return KILLED
    if "error while loading shared libraries" in message:
        return f"run again; if it stays so, reinstall the program and its libraries: {_ANOTHER}"
    # "Resource temporarily unavailable" has other reasons in other programs: a lock that is held.
    return next((_SCARCE[n] for n in _SCARCE if n != errno.EAGAIN and os.strerror(n) in message), "")


def system_refused(error: OSError) -> KernelError:
    """Return the error for a system call that failed where no code expects it."""
    reason = error.strerror or str(error)
    what = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    if not what and ": " not in reason:  # an error of netlink says what was being done
        what = "the system refused what this program needs"
    return KernelError(f"{what}: {reason}" if what else reason, of_errno(error.errno))


def program_not_loaded(error: Exception) -> KernelError:
    """Return the error if a part of this program cannot be read, or the process gets no memory."""
    if isinstance(error, MemoryError):
        return KernelError("there is not enough memory", _SCARCE[errno.ENOMEM])
    if isinstance(error, OSError):
        return system_refused(error)
    return KernelError(
        f"a part of this program cannot be loaded: {error}",
        "run again; if it stays so, install istio-iptables again, and see whether its files can be read",
    )


def not_started(path: str, error: OSError) -> KernelError:
    """Return the error for a command that cannot be run: something has run out, or its file is broken."""
    return KernelError(
        f"the command {path} cannot be run: {error.strerror}",
        of_errno(error.errno)
        if is_scarce(error.errno)
        else "reinstall its package, or change PATH so that another one is found",
    )


# --- files ----------------------------------------------------------------------------------


def lock_not_opened(path: str, why: str) -> KernelError:
    """Return the error for a lock file that can be neither opened nor made."""
    return KernelError(
        f"the lock file {path} cannot be opened: {why}",
        "mount a writable directory there, or put an empty file there in the image (which may then "
        "be read-only), or name another file in XTABLES_LOCKFILE, "
        "or use --cni-mode, which locks only the network namespace",
    )


def lock_held(path: str, holder: str, seconds: float) -> KernelError:
    """Return the error for a lock that another process has held for all the time that a run waits."""
    return Busy(
        f"the lock {path} is still held by {holder} after {seconds:g} seconds",
        f"find the process (fuser -v {path}) and let it finish, then run again",
    )


def dry_run_file_not_written(path: str, why: object) -> KernelError:
    """Return the error for the file of a dry run."""
    return KernelError(
        f"DRY_RUN_FILE_PATH: {path!r} cannot be written: {why}",
        "name a file in a directory that exists and is writable",
    )


# --- programs and libraries -----------------------------------------------------------------


def command_missing(name: str) -> KernelError:
    """Return the error for a command of iptables that is not installed."""
    return KernelError(
        f"the command {name} is not installed",
        f"{INSTALL_IPTABLES}, or choose the other variant with --force-iptables-binary",
    )


def nft_missing(*tables: str) -> KernelError:
    """Return the error for tables, as `family name`, with something that only the command nft can show."""
    which = f"the table {', '.join(tables)} has something that" if tables else "this is something that"
    return KernelError(f"the command nft is not installed, and {which} only nft can show", INSTALL_NFTABLES)


#: For an nft that cannot print JSON.
NFT_WITH_JSON = "install an nft that was built with JSON support, as distributions have it"


def libiptc_missing(why: str) -> KernelError:
    """Return the error for a library of libiptc that cannot be loaded."""
    return KernelError(
        f"libiptc cannot be used: {why}",
        "install the package iptables (it has libip4tc and libip6tc), or choose the command with "
        "--force-iptables-binary legacy",
    )


# --- the kernel -----------------------------------------------------------------------------


def legacy_lacking(command: str) -> str:
    """Return what to do if the kernel lacks a part of legacy iptables; `command` is that of the family."""
    return (
        f"the kernel lacks legacy {command} or this table or match: load its module on the node "
        f"({command.removesuffix('s')}_nat, xt_REDIRECT, xt_owner, ...), or use --force-iptables-binary nft"
    )


#: If the kernel lacks a part that rules of iptables-nft need.
IPTABLES_LACKING = (
    "the kernel lacks a table, match or target that is named above: load its module on the node"
)
#: If the kernel lacks a part that native rules need.
NFTABLES_LACKING = (
    "the kernel lacks a part of nftables that is named above (nf_tables, nft_chain_nat, nft_redir, "
    "nft_tproxy, ...; family inet needs Linux 5.2): load its module on the node, "
    "or do not use --native-nftables"
)
#: If a transaction is larger than a process in a user namespace may send.
LARGER_MESSAGES = (
    "raise the limit of messages in the machine's own user namespace (sysctl net.core.wmem_max, in bytes), "
    "or list fewer members"
)
#: If a process owns a table (`flags owner`).
END_THE_OWNER = (
    "stop that program: only the owner of a table may change it (`nft list tables` lists the tables)"
)
NO_IPV6 = "the kernel has no IPv6: boot it without ipv6.disable=1, or do not use --dual-stack"
IPV6_OFF = (
    "IPv6 is switched off for the loopback interface: set the sysctl net.ipv6.conf.lo.disable_ipv6 "
    "to 0, or do not use --dual-stack"
)


# --- what is in place -----------------------------------------------------------------------


def tables_unreadable(tables: Sequence[object], *, owned: bool) -> KernelError:
    """Return the error for tables, as `family name`, that iptables cannot read; `owned`: ours are in them."""
    names = ", ".join(f"`nft list table {table}`" for table in tables)
    return KernelError(
        f"iptables cannot read the nft table {', '.join(map(str, tables))}"
        f"{', which has chains of istio-iptables' if owned else ''}: "
        "another program put a rule into it with nft",
        f"move that rule to a table of its own ({names} shows it), or use another backend (--native-nftables)"
        + (", after `istio-iptables cleanup`" if owned else ""),
    )


def address_in_the_way(address: str, wanted: object) -> KernelError:
    """Return the error for an address that lo has, but with another prefix than the `wanted` one."""
    return KernelError(
        f"the interface lo already has the address {address}, but not as {wanted}",
        "remove it (`ip -6 addr show dev lo` shows it), then run again",
    )


def route_in_the_way(table: int, family: str) -> KernelError:
    """Return the error for a routing table that has another default route."""
    return KernelError(
        f"the routing table {table} ({family}) already has another default route",
        "choose another table with --istio-inbound-tproxy-route-table, or remove the route "
        f"(`ip route show table {table}` shows it)",
    )

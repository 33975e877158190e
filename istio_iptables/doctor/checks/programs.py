"""programs: the programs and libraries that write and read the rules."""

from __future__ import annotations

from ... import remedies
from ...change.actions import IPTABLES_LEGACY, IPTABLES_NFT
from ...startup.record import Record
from ..features import parts_of_rules
from ..model import Answer, bad, fine, refused, unchecked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...errors import KernelError
    from ..needs import Needs


class Commands(Record):
    """The commands of one variant of iptables: how they call themselves, or what is missing.

    `takes_the_lock`: iptables-restore locks /run/xtables.lock whatever XTABLES_LOCKFILE says.
    """

    version: str = ""
    missing: KernelError | None = None
    takes_the_lock: bool = False


def iptables_legacy(found: Commands, needs: Needs, *, libiptc: bool, cni_mode: bool) -> Answer:
    """Check iptables-legacy; `libiptc`: that writes the legacy tables in its place."""
    if found.missing:
        if libiptc and needs.location == IPTABLES_LEGACY:
            return fine(f"{found.missing.cause}: libiptc writes the legacy tables without it")
        return needs.judge(refused(found.missing), IPTABLES_LEGACY)
    if found.takes_the_lock and not libiptc and not cni_mode:
        old = bad(
            f"{found.version} does not know the variable XTABLES_LOCKFILE, so it asks for the lock that the "
            "run itself holds, and cannot get it",
            "install iptables 1.8.6 or later, or use --cni-mode, which locks only the network namespace, or "
            "--force-iptables-binary nft",
        )
        return needs.judge(old, IPTABLES_LEGACY)
    return fine(found.version)


def iptables_nft(found: Commands, needs: Needs) -> Answer:
    """Check iptables-nft."""
    if found.missing:
        return needs.judge(refused(found.missing), IPTABLES_NFT)
    return fine(found.version)


class Library(Record):
    """libiptc: why it is `missing`, so that another way is taken, or the `error` of a run that needs it."""

    missing: str = ""
    error: KernelError | None = None


def libiptc(found: Library, needs: Needs, *, forced: bool) -> Answer:
    """Check libiptc, the first choice for legacy tables; `forced`: the settings ask for a command."""
    if forced:
        return fine("not needed: --force-iptables-binary or --native-nftables chooses a command")
    if found.error:
        return needs.judge(refused(found.error), IPTABLES_LEGACY)
    if found.missing:
        return fine(f"{found.missing}: iptables-legacy-restore writes the legacy tables instead")
    return fine("it can be loaded")


class Extensions(Record):
    """The folders in which iptables looks for its extensions, and the names of the files there."""

    folders: tuple[str, ...]
    files: frozenset[str] = frozenset()


def extensions(found: Extensions, needs: Needs, *, by_command: bool) -> Answer:
    """Check the libraries by which iptables-restore knows matches and targets (iptables-extensions(8)).

    `by_command`: the rules are written by iptables-restore, not by libiptc or nft.
    """
    if not by_command:
        return fine("not needed: the rules are not written by iptables-restore")
    where = ", ".join(found.folders)
    if not found.files and not found.folders:
        return unchecked(
            "no folder with extensions of iptables was found, unless they are built in",
            "reinstall the package iptables, or name the folder in XTABLES_LIBDIR",
        )
    listed = [part.listed[1] for part, _ in parts_of_rules(needs, IPTABLES_LEGACY) if part.listed]
    missing = [
        f"libxt_{name}.so"
        for name in ("standard", *dict.fromkeys(listed))
        if not any(f"lib{kind}_{name}.so" in found.files for kind in ("xt", "ipt", "ip6t"))
    ]
    if missing:
        return bad(
            f"iptables cannot load {', '.join(missing)} ({where})",
            "reinstall the package iptables, or have XTABLES_LIBDIR name the folder with its extensions",
        )
    return fine(f"those that the rules need are in {where}")


class Nft(Record):
    """The command nft: what it says of its version, or what is wrong with it, such as no support of JSON.

    `installed` says that it is there at all. `to_read` are tables in place that only nft can read.
    """

    version: str = ""
    installed: bool = True
    problem: KernelError | None = None
    to_read: tuple[str, ...] = ()


def nft(found: Nft, oldest: tuple[int, ...]) -> Answer:
    """Check the command nft, and that it is not older than `oldest`, the first that prints what we can read.

    Native rules are written and read without it; it is needed for what other programs have put beside them.
    """
    version = version_of(found.version)
    if not found.installed and found.to_read:
        return refused(remedies.nft_missing(*found.to_read))
    if not found.installed:
        answer = bad("the command nft is not installed", remedies.INSTALL_NFTABLES)
    elif found.problem:
        answer = refused(found.problem)
    elif version and version < oldest:
        answer = bad(
            f"{found.version} is too old to be read",
            f"install nftables {'.'.join(map(str, oldest))} or later",
        )
    else:
        return fine(found.version)
    if found.to_read:
        return answer.replace(details=(f"needed to read {', '.join(found.to_read)}",))
    return fine(f"{answer.finding}: only tables with rules of other programs would need it", *answer.details)


def version_of(text: str) -> tuple[int, ...]:
    """Return the version in what a program prints, such as `nftables v1.0.6 (Lester Gooch #5)`.

    >>> version_of("nftables v1.0.6 (Lester Gooch #5)"), version_of("no version")
    ((1, 0, 6), ())
    """
    for word in text.split():
        parts = word.removeprefix("v").split(".")
        if len(parts) > 1 and all(part.isdigit() for part in parts):
            return tuple(map(int, parts))
    return ()

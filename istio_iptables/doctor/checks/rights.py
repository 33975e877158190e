"""rights: what this process may do, in which user namespace."""

from __future__ import annotations

from ... import remedies
from ...startup.record import Record
from ..model import Answer, bad, doubtful, fine, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...errors import KernelError

#: What reading and writing rules takes.
FOR_RULES = ("NET_ADMIN", "NET_RAW")
#: What the validation takes to connect as the proxy and as others.
FOR_VALIDATION = ("SETUID", "SETGID")
#: Where a container is denied what a program could add to its rights.
_ESCALATION = "securityContext.allowPrivilegeEscalation: false"


class Rights(Record):
    """The IDs of this process, and its capabilities of FOR_RULES and FOR_VALIDATION (capabilities(7)).

    `no_new_privs` is None for a kernel that does not tell (before Linux 4.10).
    """

    uid: int
    gid: int
    effective: frozenset[str]
    permitted: frozenset[str]
    bounding: frozenset[str]
    no_new_privs: bool | None

    def missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of some capabilities that are not effective."""
        return tuple(name for name in names if name not in self.effective)

    def why_missing(self, name: str) -> str:
        """Return why a capability is not effective."""
        if name in self.permitted:
            return f"{name}: permitted, but not effective: the program that started this one has lowered it"
        if name in self.bounding:
            return (
                f"{name}: in the bounding set: a process of UID 0 would have it, and this is UID {self.uid}"
            )
        return f"{name}: not in the bounding set: no process of this container can have it"


def capabilities(rights: Rights) -> Answer:
    """Check what every command that meets the kernel checks first."""
    missing = rights.missing(FOR_RULES)
    if missing:
        return refused(remedies.capabilities_missing(missing), *map(rights.why_missing, missing))
    return fine(f"{' and '.join(FOR_RULES)} are effective")


def user(rights: Rights, unreadable: KernelError | None) -> Answer:
    """Check who runs it. `unreadable`: the kernel's list of legacy tables, which belongs to root."""
    if unreadable is not None:
        return refused(unreadable, f"this is UID {rights.uid}")
    return fine(f"UID {rights.uid}" if rights.uid else "root")


def validation_rights(rights: Rights, *, asked: bool, proxy: tuple[Sequence[int], Sequence[int]]) -> Answer:
    """Check whether the validation could connect as the proxy, whose UIDs and GIDs are given."""
    if not asked:
        return fine("not needed: --run-validation is not set")
    if rights.uid in proxy[0] and rights.gid in proxy[1]:
        return fine(f"UID {rights.uid} is the proxy's own, and validates as that")
    missing = rights.missing(FOR_VALIDATION)
    if not missing:
        return fine(f"{' and '.join(FOR_VALIDATION)} are effective")
    return bad(
        f"{remedies.capabilities_missing(missing).cause}, so the validation cannot connect as the proxy: it "
        "ends with exit code 126",
        remedies.become(f"UID {proxy[0][0]}"),
        *map(rights.why_missing, missing),
    )


def no_new_privs(rights: Rights) -> Answer:
    """Check whether the kernel denies this process rights that a program could give it (prctl(2))."""
    if not rights.no_new_privs:
        return fine("not set" if rights.no_new_privs is False else "this kernel does not tell")
    missing = rights.missing(FOR_RULES)
    if not missing:
        return fine("set, which changes nothing: the capabilities are there already")
    return doubtful(
        "no_new_privs is set: no program, neither sudo nor one with capabilities of its own, can give this "
        f"process {' and '.join(missing)}",
        f"give them to the container itself (securityContext.capabilities.add), or do without {_ESCALATION}",
    )


class UserNamespace(Record):
    """The user namespace of this process (user_namespaces(7)).

    `uids` and `gids` are the IDs that it has, as ranges of first and last. `owns_network`: the network
    namespace belongs to it; None if that is not known.
    """

    initial: bool
    uids: tuple[tuple[int, int], ...] = ()
    gids: tuple[tuple[int, int], ...] = ()
    owns_network: bool | None = None


def user_namespace(
    found: UserNamespace, uids: Sequence[int], gids: Sequence[int], *, native: bool | None
) -> Answer:
    """Check that capabilities count in this network namespace, and that rules may name these IDs.

    xt_owner.c (owner_check) takes a rule only from the user namespace that the network namespace belongs to,
    and only with IDs that exist there. `native`: the rules are native nftables, which take any number.
    """
    if found.initial:
        return fine("that of the machine")
    if found.owns_network is False:
        return bad(
            "the network namespace belongs to another user namespace than this process: its capabilities do "
            "not count there",
            remedies.NOT_PERMITTED,
        )
    unknown = [
        *(f"UID {uid}" for uid in uids if not _within(uid, found.uids)),
        *(f"GID {gid}" for gid in gids if not _within(gid, found.gids)),
    ]
    if not unknown:
        return fine("one of its own, with all UIDs and GIDs of the rules")
    finding = f"this user namespace does not have {', '.join(unknown)}"
    if native:
        effect = "no process can have them, so the rules that exempt the proxy match nothing"
        return doubtful(f"{finding}: {effect}", _MAP)
    return bad(f"{finding}: the kernel refuses rules that name them (Invalid argument)", _MAP)


_MAP = (
    "map these IDs into the user namespace (newuidmap(1), newgidmap(1)), or set --proxy-uid and --proxy-gid "
    "to those that the proxy has in there"
)


def _within(number: int, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(first <= number <= last for first, last in ranges)

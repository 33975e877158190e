"""names: what is looked up by name: users, groups, and the DNS servers of /etc/resolv.conf."""

from __future__ import annotations

from ...settings.resolve import NO_DNS_SERVER
from ...startup.record import Record
from ..model import Answer, doubtful, fine, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...errors import KernelError

#: The seconds that a look-up may take without a warning.
SLOW = 1.0


class ResolvConf(Record):
    """What is in /etc/resolv.conf: its `nameserver` lines; or that it is missing, or cannot be read."""

    servers: tuple[str, ...] = ()
    missing: bool = False
    problem: KernelError | None = None


def resolv_conf(found: ResolvConf, *, redirect_dns: bool, capture_all: bool, bad: Sequence[str]) -> Answer:
    """Check the servers whose queries --redirect-dns captures; `bad` are those that are no addresses."""
    if not redirect_dns:
        return fine("not needed: --redirect-dns is not set")
    if capture_all:
        return fine("not needed: --capture-all-dns captures queries to any server")
    remedy = "mount the pod's /etc/resolv.conf (dnsPolicy, dnsConfig), or set --capture-all-dns"
    if found.problem:
        return refused(found.problem)
    if found.missing:
        return doubtful("/etc/resolv.conf is missing", remedy, NO_DNS_SERVER)
    if bad:
        return doubtful(
            f"/etc/resolv.conf: {', '.join(map(repr, bad))} is not an address: ignored", "correct the file"
        )
    if not found.servers:
        return doubtful(NO_DNS_SERVER, remedy)
    return fine(f"DNS servers: {', '.join(found.servers)}")


class LookUp(Record):
    """The look-up of a user or group: how long it took, in seconds, and its ID, None if there is none.

    `problem` says why there is no answer: it took longer than the limit, or its process ended.
    """

    name: str
    seconds: float = 0.0
    found: int | None = None
    problem: str = ""


def name_lookup(found: Sequence[LookUp]) -> Answer:
    """Check that users and groups are looked up quickly (nsswitch.conf(5)). A run waits for every answer."""
    if not found:
        return fine("not needed: the settings name no user or group")
    remedy = (
        "set --proxy-uid and --proxy-gid to numbers, which are not looked up; or see which service of "
        "/etc/nsswitch.conf is slow (`getent passwd NAME`)"
    )
    failed = [one for one in found if one.problem]
    slow = [one for one in found if not one.problem and one.seconds > SLOW]
    details = [_described(one) for one in found]
    if failed:
        return doubtful(f"the look-up of {failed[0].name!r} {failed[0].problem}", remedy, *details[1:])
    if slow:
        seconds = sum(one.seconds for one in slow)
        return doubtful(
            f"a run waits {seconds:.1f} seconds for the look-up of {', '.join(repr(s.name) for s in slow)}",
            remedy,
            *details,
        )
    return fine("; ".join(details))


def _described(one: LookUp) -> str:
    if one.problem:
        return f"{one.name!r}: {one.problem}"
    known = "no such name" if one.found is None else str(one.found)
    return f"{one.name!r}: {known}, in {one.seconds * 1000:.0f} ms"

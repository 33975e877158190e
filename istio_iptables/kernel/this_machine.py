"""this_machine: the facts of the machine, and the network namespace, that the process is in.

Addresses, DNS servers, users and groups. Reading changes nothing.
"""

from __future__ import annotations

from ..errors import KernelError

#: Far more than any resolver reads, in bytes.
_LARGEST_RESOLV_CONF = 1 << 20


class ThisMachine:
    """The machine, and the network namespace, that the process is in."""

    def __init__(self, resolv_conf: str = "/etc/resolv.conf") -> None:
        self._resolv_conf = resolv_conf

    def usable_families(self) -> tuple[bool, bool]:
        """Tell whether there is an IPv4, and an IPv6, address that traffic could use.

        Loopback and link-local addresses do not count, nor does the address that this tool itself
        adds. On a system without rtnetlink(7) both are assumed: the rules are for a Linux machine,
        and --dual-stack then decides.
        """
        import sys

        if sys.platform != "linux":
            return True, True
        from .netlink import routing

        usable = {a.family for a in routing.addresses() if not _is_local(a.family, a.address)}
        return "ipv4" in usable, "ipv6" in usable

    def dns_servers(self) -> tuple[str, ...]:
        """Return the addresses of the `nameserver` lines of /etc/resolv.conf (resolv.conf(5)).

        There are none without that file. Raises KernelError if what is there cannot be read.
        """
        from .files import read

        try:
            text = read(self._resolv_conf, _LARGEST_RESOLV_CONF).decode(errors="replace")
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise KernelError(
                f"the DNS servers of {self._resolv_conf} cannot be read: {error.strerror}",
                "put a file as resolv.conf(5) describes it there, which this user may read",
            ) from error
        lines = map(str.split, text.splitlines())
        return tuple(words[1] for words in lines if len(words) > 1 and words[0] == "nameserver")

    def user_id(self, name: str) -> int | None:
        """Return the UID of a user, None if there is none of that name."""
        try:
            import pwd

            return pwd.getpwnam(name).pw_uid
        except (ImportError, KeyError, ValueError):
            return None

    def group_id(self, name: str) -> int | None:
        """Return the GID of a group, None if there is none of that name."""
        try:
            import grp

            return grp.getgrnam(name).gr_gid
        except (ImportError, KeyError, ValueError):
            return None


def _is_local(family: str, address: str) -> bool:
    """Tell whether an address, as inet_ntop writes it, is a loopback or link-local one, or ::6."""
    if family == "ipv4":
        return address.startswith(("127.", "169.254."))
    first_group = address.partition(":")[0]
    link_local = len(first_group) == 4 and 0xFE80 <= int(first_group, 16) <= 0xFEBF
    return address in ("::1", "::6") or link_local

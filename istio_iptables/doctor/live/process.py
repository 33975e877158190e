"""process: the rights of this process, and its user namespace, as /proc shows them (proc(5))."""

from __future__ import annotations

import os

from ...kernel.proc import CAPABILITIES
from ..checks.rights import Rights, UserNamespace

#: ioctl_ns(2): the user namespace that a namespace belongs to.
_NS_GET_USERNS = 0xB701
#: All IDs, each mapped to itself: the namespace that the kernel starts with.
_EVERY_ID = "0 0 4294967295"


def rights() -> Rights:
    """Return what this process may do. Raises OSError."""
    with open("/proc/self/status", encoding="utf-8") as file:
        fields = dict(line.rstrip("\n").partition(":")[::2] for line in file)
    no_new_privs = fields.get("NoNewPrivs")
    return Rights(
        os.geteuid(),
        os.getegid(),
        _capabilities(fields["CapEff"]),
        _capabilities(fields["CapPrm"]),
        _capabilities(fields["CapBnd"]),
        None if no_new_privs is None else no_new_privs.strip() == "1",
    )


def _capabilities(mask: str) -> frozenset[str]:
    held = int(mask, 16)
    return frozenset(each for each, bit in CAPABILITIES.items() if held >> bit & 1)


def user_namespace() -> UserNamespace:
    """Return the user namespace of this process. Raises OSError."""
    maps = [_lines(f"/proc/self/{kind}_map") for kind in ("uid", "gid")]
    if all(lines == [_EVERY_ID] for lines in maps):
        return UserNamespace(initial=True)
    uids, gids = (tuple(_range(line) for line in lines) for lines in maps)
    return UserNamespace(initial=False, uids=uids, gids=gids, owns_network=_owns_network())


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return [" ".join(line.split()) for line in file]
    except FileNotFoundError:  # a kernel without user namespaces has only that of the machine
        return [_EVERY_ID]


def _range(line: str) -> tuple[int, int]:
    first, _, count = map(int, line.split())
    return first, first + count - 1


def _owns_network() -> bool | None:
    """Tell whether the network namespace belongs to the user namespace of this process.

    One of an ancestor may not be looked at (EPERM), and is not that of this process.
    """
    import fcntl

    descriptors = []
    try:
        descriptors.append(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        descriptors.append(fcntl.ioctl(descriptors[0], _NS_GET_USERNS))
        owner, own = os.fstat(descriptors[1]), os.stat("/proc/self/ns/user")
        return (owner.st_dev, owner.st_ino) == (own.st_dev, own.st_ino)
    except PermissionError:
        return False
    except OSError:  # Linux before 4.9
        return None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)

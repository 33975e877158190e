"""The owner in the kernel is the UID or GID that was asked for, whatever /etc/passwd has: SPEC section 2."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from ..support.scratch import FAMILIES, KERNEL, VARIANTS, Scratch, Variant
from ..support.snapshots import LOCATIONS, NATIVE, with_files

pytestmark = KERNEL


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    """A namespace with a usable address of either family."""
    with Scratch(addresses=True) as made:
        yield made


# --- the owner is what was asked for --------------------------------------------------------

#: Users and groups whose names read like numbers, each with another ID.
NAMES_LIKE_NUMBERS = ("1337", "1337-1337", "0x539", "01337", "+1337")
PASSWD = "".join(
    f"{name}:x:{id_}:{id_}::/:/bin/sh\n"
    for name, id_ in (("root", 0), *((n, 4242) for n in NAMES_LIKE_NUMBERS))
)
GROUP = "".join(f"{name}:x:{id_}:\n" for name, id_ in (("root", 0), *((n, 4242) for n in NAMES_LIKE_NUMBERS)))
ASKED = {
    "default": ([], {}),
    "user": (["-u", "1337", "-g", "1338"], {}),
    "group": (["-u", "1338", "-g", "1337"], {}),
    "owner groups": (["-u", "1338", "-g", "1338"], {"ISTIO_OUTBOUND_OWNER_GROUPS": "1337"}),
    "excluded groups": (["-u", "1338", "-g", "1338"], {"ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "1337"}),
}
WRITERS = {"libiptc": [], "legacy": LOCATIONS["legacy"], "nft": LOCATIONS["nft"], "native": NATIVE}


def owners_in(scratch: Scratch) -> set[str]:
    """Return every ID of an owner match or expression that is in the kernel, as numbers."""
    found: set[str] = set()
    for variant in VARIANTS:
        for family in FAMILIES:
            found |= set(re.findall(r"--[ug]id-owner (\S+)", scratch.save(variant, family)))
    numeric = scratch.nft("--numeric", "list", "ruleset")
    return (
        found
        | {
            number
            for text in re.findall(r"sk[ug]id (?:!= )?(\{[^}]*\}|\d+\S*)", numeric)
            for number in re.findall(r"\d+", text)
        }
        | {
            number
            for text in re.findall(r"type [ug]id[^}]*elements = \{([^}]*)\}", numeric)
            for number in re.findall(r"\d+", text)
        }
    )


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_number_is_an_id_whatever_users_and_groups_are_named(
    scratch: Scratch, writer: str, asked: str
) -> None:
    arguments, environment = ASKED[asked]
    prefix = with_files(scratch, {"/etc/passwd": PASSWD, "/etc/group": GROUP})
    done = scratch.tool(*WRITERS[writer], *arguments, "--dual-stack", env=environment, prefix=prefix)
    assert done.returncode == 0, done.stderr
    found = owners_in(scratch)
    assert "1337" in found
    assert found <= {"1337", "1338"}
    again = scratch.tool(*WRITERS[writer], *arguments, "--dual-stack", env=environment, prefix=prefix)
    assert again.returncode == 0, again.stdout
    assert "nothing to do" in again.stderr


@pytest.mark.parametrize("writer", WRITERS)
def test_a_user_named_1337_does_not_stop_anything(scratch: Scratch, writer: str) -> None:
    text = "root:x:0:0::/:/bin/sh\n1337:x:4242:4242::/:/bin/sh\n"
    prefix = with_files(scratch, {"/etc/passwd": text, "/etc/group": "root:x:0:\n1337:x:4242:\n"})
    done = scratch.tool(*WRITERS[writer], "--dual-stack", prefix=prefix)
    assert done.returncode == 0, done.stderr
    assert owners_in(scratch) == {"1337"}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_name_of_a_user_is_resolved_once_by_the_tool(scratch: Scratch, writer: str) -> None:
    text = "root:x:0:0::/:/bin/sh\nproxy-user:x:5151:5151::/:/bin/sh\n"
    prefix = with_files(scratch, {"/etc/passwd": text, "/etc/group": "root:x:0:\nproxy-user:x:5252:\n"})
    arguments = [*WRITERS[writer], "-u", "proxy-user", "-g", "proxy-user"]
    done = scratch.tool(*arguments, prefix=prefix)
    assert done.returncode == 0, done.stderr
    assert owners_in(scratch) == {"5151", "5252"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_iptables_takes_a_number_and_a_range_for_a_name_but_no_range_with_a_colon(
    scratch: Scratch, variant: Variant
) -> None:
    """Why an owner is written as 1337:1337."""
    prefix = with_files(scratch, {"/etc/passwd": PASSWD, "/etc/group": GROUP})
    for spelling, found in (
        ("1337", "4242"),
        ("1337-1337", "4242"),
        ("0x539", "4242"),
        ("1337:1337", "1337"),
    ):
        for option in ("--uid-owner", "--gid-owner"):
            script = f"*nat\n-F OUTPUT\n-A OUTPUT -m owner {option} {spelling} -j RETURN\nCOMMIT\n"
            command = [*prefix, f"iptables-{variant}-restore", "--noflush"]
            scratch.check(*command, stdin=script)
            assert f"{option} {found} -j RETURN" in scratch.save(variant, "ipv4"), spelling

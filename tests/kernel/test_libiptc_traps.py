"""The traps of libiptc and of python-iptables 1.2.0, one test each: the libiptc backend survives it.

It calls libiptc itself, without python-iptables. Each trap stands in the words of the design notes. What is
in the kernel is read past both libraries, by getsockopt(2), so that no parser is between the test and the
bytes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from istio_iptables import Facts, KernelError, Machine, Ruleset, build, configure, prepare
from istio_iptables.kernel.xtables.libiptc import Libiptc
from istio_iptables.rules.edit import Insert, TableEdit
from istio_iptables.rules.model import (
    RETURN,
    Cidr,
    Destination,
    InInterface,
    OutInterface,
    Redirect,
    Rule,
    Transport,
)
from istio_iptables.settings.go_flags import read_arguments
from tests.support.applying import ALL_SORTS, rules_of
from tests.support.legacy_entries import Entry, entries
from tests.support.oracle import expected
from tests.support.saved import normalise_save

from ..support.scratch import (
    FAMILIES,
    KERNEL,
    SETPRIV,
    Family,
    Scratch,
    needs_seccomp,
    refuse_replacing,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from istio_iptables.rules.model import TableName

pytestmark = KERNEL


def rules(*arguments: str, ipv6: bool = True) -> Ruleset:
    given = {item.setting.name: item.text for item in read_arguments(arguments).settings}
    return build(configure(given, environment=Facts(ipv6=ipv6)))


def insert(family: Family, table: TableName, chain: str, rule: Rule) -> TableEdit:
    return TableEdit(family, table, (Insert(chain, 1, rule, False),))


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    with Scratch(addresses=True) as made:
        yield made


@pytest.fixture
def libiptc() -> Iterator[Libiptc]:
    backend = Libiptc()
    yield backend
    backend.close()


# --- the traps ------------------------------------------------------------------------------


def test_ipv4_and_ipv6_in_one_process_break(scratch: Scratch) -> None:
    """One process writes both, with every kind of rule: libxtables, which breaks, is not loaded."""
    scratch.apply(*ALL_SORTS)
    wanted = {
        "istio-inbound-interception-mode": "TPROXY",
        "istio-inbound-tproxy-mark": "1400",
        "istio-exclude-interfaces": "eth1,net+",
        "kube-virt-interfaces": "vm0",
        "istio-inbound-ports": "80,8000-8100",
        "istio-service-cidr": "10.0.0.0/8,fd00::/8",
        "istio-service-exclude-cidr": "10.1.0.0/16",
        "istio-local-outbound-ports-exclude": "123",
        "istio-outbound-ports": "443",
        "redirect-dns": "true",
        "capture-all-dns": "true",
        "drop-invalid": "true",
    }
    assert rules_of(scratch) == expected(wanted, ipv6=True)
    with scratch.inside(), Machine() as machine:
        prepare(machine, rules("--dual-stack")).apply()
        loaded = Path("/proc/self/maps").read_text()
        assert "libip4tc" in loaded
        assert "libip6tc" in loaded
        assert "libxtables" not in loaded


def test_ipv6_rules_get_an_interface_mask_of_0x01(scratch: Scratch, libiptc: Libiptc) -> None:
    """The mask is all ones over the name and its NUL, or over a wildcard's prefix; in IPv4, too."""
    masks = {
        "lo": b"lo\0",
        "eth0": b"eth0\0",
        "fifteencharsxyz": b"fifteencharsxyz\0",
        "eth+": b"eth",
        "fourteenchars+": b"fourteenchars",
    }
    for family in FAMILIES:
        for name, compared in masks.items():
            with scratch.inside():
                libiptc.apply(insert(family, "mangle", "OUTPUT", Rule((OutInterface(name),), RETURN)))
                libiptc.apply(
                    insert(family, "mangle", "PREROUTING", Rule((InInterface(name, True),), RETURN))
                )
                found = entries(family, "mangle")
            mask = (b"\xff" * len(compared)).ljust(16, b"\0")
            (out,) = [e for e in found if e.outgoing[0].startswith(name.encode())]
            assert (out.outgoing[1], out.incoming) == (mask, (bytes(16), bytes(16)))
            (inward,) = [e for e in found if e.incoming[0].startswith(name.encode())]
            assert (inward.incoming[1], inward.outgoing, inward.inverted) == (mask, (bytes(16), bytes(16)), 1)
    scratch.apply("--dual-stack")
    with scratch.inside():
        to_lo = [e.outgoing for e in entries("ipv6", "nat") if e.outgoing[0].startswith(b"lo\0")]
    assert len(to_lo) == 5
    assert {mask for _, mask in to_lo} == {b"\xff\xff\xff".ljust(16, b"\0")}


def test_not_p_loses_ip6t_f_proto(scratch: Scratch, libiptc: Libiptc) -> None:
    """The flag without which the kernel does not look at the protocol of an IPv6 packet."""
    with scratch.inside():
        for family, protocol_flag in (("ipv4", 0), ("ipv6", 0x01)):
            for negated in (False, True):
                rule = Rule((Transport("tcp", negated),), RETURN)
                libiptc.apply(insert(family, "raw", "OUTPUT", rule))  # type: ignore[arg-type]
            found = [e for e in entries(family, "raw") if e.protocol]  # type: ignore[arg-type]
            assert [(e.protocol, e.flags, e.inverted) for e in found] == [
                (6, protocol_flag, 0x40),
                (6, protocol_flag, 0),
            ]
    for family in FAMILIES:
        assert "-A OUTPUT ! -p tcp -j RETURN\n-A OUTPUT -p tcp -j RETURN\n" in scratch.save("legacy", family)


def test_host_bits_are_not_cleared(scratch: Scratch) -> None:
    """In the kernel's bytes: an address with bits outside of its mask would match nothing."""
    scratch.apply(
        "--dual-stack", "-x", "10.1.2.3/8,172.16.5.5/12,fd00:1::5/16,1.2.3.4", "-i", "192.168.77.1/17"
    )
    found: list[Entry] = []
    with scratch.inside():
        for family in FAMILIES:
            found += entries(family, "nat")
    networks = {
        (socket.inet_ntop(socket.AF_INET if len(d) == 4 else socket.AF_INET6, d), m.hex().count("f"))
        for d, m in (entry.destination for entry in found)
    }
    assert {("10.0.0.0", 2), ("fd00::", 4), ("1.2.3.4", 8)} <= networks
    for address, mask in (entry.destination for entry in found):
        assert not any(a & ~m for a, m in zip(address, mask, strict=True))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dual-stack"],
        ALL_SORTS,
        ["-u", "0,1337", "-g", "4294967294", "-b", "1:65535", "-d", "80", "-t", "1"],
    ],
    ids=["simple", "all sorts", "ends of ranges"],
)
def test_what_it_builds_is_not_what_iptables_builds(arguments: list[str]) -> None:
    """Every entry is, in the kernel, the one that iptables-legacy-restore makes, to the byte."""
    with Scratch(addresses=True) as one, Scratch(addresses=True) as other:
        one.apply(*arguments)
        other.apply(*arguments, "--force-iptables-binary", "legacy")
        assert one.legacy_tables() == other.legacy_tables() != set()
        for name in sorted(one.legacy_tables()):
            family, table = name.split("/")
            blobs = []
            for scratch in (one, other):
                with scratch.inside():
                    blobs.append(entries(family, table))  # type: ignore[arg-type]
            assert blobs[0] == blobs[1]


def test_it_takes_no_xtables_lock(scratch: Scratch) -> None:
    """The caller holds it from before reading until after writing, and lets it go."""

    def is_free() -> bool:
        with open(scratch.lock) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    with scratch.inside():
        with Machine() as machine:
            assert not is_free()
            prepared = prepare(machine, rules("--dual-stack"))
            assert not is_free()
            prepared.apply()
            assert not is_free()
        assert is_free()
        with pytest.raises(ZeroDivisionError), Machine():
            assert 1 // is_free()
        assert is_free()


def test_refresh_after_every_commit(scratch: Scratch, libiptc: Libiptc) -> None:
    """Two edits by one process, and edits of another program before, between and after: none is lost."""
    with scratch.inside():
        for number in range(5):
            scratch.check(
                "iptables-legacy", *f"-t nat -A OUTPUT -p udp --dport {number + 1} -j RETURN".split()
            )
            network = Destination(Cidr(4, (10 << 24) + number, 32))
            libiptc.apply(insert("ipv4", "nat", "OUTPUT", Rule((network,), RETURN)))
        scratch.check(*shlex.split("iptables-legacy -t nat -A OUTPUT -p udp --dport 6 -j RETURN"))
        (table,) = libiptc.read("ipv4")
    assert len(table.chain("OUTPUT").rules) == 11
    saved = normalise_save(scratch.save("legacy", "ipv4"))["nat"]
    assert [int(n) for n in re.findall(r"--dport (\d)", " ".join(saved))] == [1, 2, 3, 4, 5, 6]
    assert re.findall(r"10\.0\.0\.(\d)", " ".join(saved)) == ["4", "3", "2", "1", "0"]


@needs_seccomp
@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOMEM, errno.EAGAIN, errno.ENOENT])
def test_autocommit_swallows_what_the_kernel_rejects(scratch: Scratch, error: int) -> None:
    """A refused commit is an error with the kernel's reason."""
    done = scratch.tool(preexec_fn=lambda: refuse_replacing("ipv4", error=error))
    assert done.returncode == 1
    assert "could not commit the table nat" in done.stderr
    assert "what to do: " in done.stderr
    assert os.strerror(error) in done.stderr
    assert normalise_save(scratch.save("legacy", "ipv4")) == {}


def test_a_rule_that_the_kernel_itself_refuses_is_reported(scratch: Scratch, libiptc: Libiptc) -> None:
    """REDIRECT outside of nat: the whole edit is refused, the table is as before, the process goes on."""
    good = Rule((Transport("udp"),), RETURN)
    bad = Rule((Transport("tcp"),), Redirect(15001))
    with scratch.inside():
        libiptc.apply(insert("ipv4", "mangle", "OUTPUT", good))
        before = scratch.save("legacy", "ipv4")
        steps = (Insert("OUTPUT", 1, good, False), Insert("OUTPUT", 1, bad, False))
        with pytest.raises(KernelError, match=r"could not commit the table mangle: Invalid argument"):
            libiptc.apply(TableEdit("ipv4", "mangle", steps))
        assert scratch.save("legacy", "ipv4") == before
        with pytest.raises(KernelError, match="ISTIO_NONE"):
            libiptc.apply(insert("ipv4", "mangle", "ISTIO_NONE", good))
        libiptc.apply(insert("ipv4", "mangle", "OUTPUT", good))
    assert scratch.save("legacy", "ipv4").count("-A OUTPUT -p udp -j RETURN") == 2


def test_without_cap_net_admin_it_may_call_exit_from_c(scratch: Scratch) -> None:
    """The process goes on and says what is missing, every time."""
    scratch.apply("--dual-stack")
    code = """
from istio_iptables import KernelError
from istio_iptables.kernel.xtables.libiptc import Libiptc
from istio_iptables.rules.edit import TableEdit, CreateChain
backend = Libiptc()
for family in ("ipv4", "ipv6"):
    edit = TableEdit(family, "nat", (CreateChain("X"),))
    for call in (lambda: backend.read(family), lambda: backend.apply(edit)):
        try:
            call()
        except KernelError as error:
            print(error.remedy)
        else:
            print("no error")
backend.close()
print("alive")
"""
    done = scratch.run(SETPRIV, "--bounding-set=-net_admin,-net_raw", *python(code))
    assert done.returncode == 0, done.stderr
    *remedies, alive = done.stdout.splitlines()
    assert alive == "alive"
    assert len(remedies) == 4
    assert all("NET_ADMIN" in remedy for remedy in remedies)
    assert not done.stderr


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_table_handle_stays_in_the_namespace_it_was_opened_in() -> None:
    """One process, several namespaces, there and back: rules are always where they belong."""
    with Scratch() as one, Scratch() as other, Scratch() as third:
        for scratch, port in ((one, "81"), (other, "82"), (one, "83"), (other, "84")):
            with scratch.inside(), Machine() as machine:
                prepare(machine, rules("-b", port, ipv6=False)).apply()
        for scratch, port in ((one, "83"), (other, "84")):
            assert rules_of(scratch) == expected({"istio-inbound-ports": port}, ipv6=False)
        third.apply("--network-namespace", one.name, "-b", "85", "--reconcile")
        assert rules_of(one) == expected({"istio-inbound-ports": "85"}, ipv6=False)
        assert third.legacy_tables() == set()


def test_20000_rules_take_seconds_through_its_objects(scratch: Scratch) -> None:
    """20,000 networks: written, read back as equal, changed by one, and removed."""
    ipv4 = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(20_000)]
    ipv6 = [f"fd{number:02x}::/16" for number in range(100)]
    configuration = scratch.directory / "config.json"
    arguments = ["--dual-stack", "--config", str(configuration), "--reconcile"]
    for networks in ([*ipv4, *ipv6], [*ipv4[:-1], "192.0.2.0/24", *ipv6]):
        configuration.write_text(json.dumps({"istio-service-exclude-cidr": ",".join(networks)}))
        scratch.apply(*arguments)
        for family, wanted in (("ipv4", networks[:20_000]), ("ipv6", ipv6)):
            saved = scratch.save(family=family, variant="legacy")  # type: ignore[arg-type]
            excluded = re.findall(r"^-A ISTIO_OUTPUT -d (\S+) -j RETURN$", saved, re.MULTILINE)
            assert excluded[1:] == wanted
    assert "nothing to do" in scratch.apply(*arguments).stderr
    scratch.apply("cleanup")
    assert rules_of(scratch) == {}


def test_the_kernel_instantiates_all_tables_when_a_custom_chain_target_is_made(scratch: Scratch) -> None:
    """Jumps everywhere, and only the tables that have rules come into being."""
    scratch.apply("-m", "TPROXY", "--drop-invalid", "-k", "vm0")
    assert scratch.legacy_tables() == {"ipv4/nat", "ipv4/mangle"}
    scratch.apply("--reconcile", "--redirect-dns", "--capture-all-dns")
    assert scratch.legacy_tables() == {"ipv4/nat", "ipv4/mangle", "ipv4/raw"}


def test_a_run_starts_no_process(scratch: Scratch) -> None:
    """No fork, and nothing is executed."""
    code = """
import sys
seen = []
def audit(event, arguments):
    if event.startswith(("os.", "subprocess.")):
        seen.append(event)
sys.addaudithook(audit)
from istio_iptables.__main__ import main
status = main()
print([event for event in seen if event.split(".")[1] in ("fork", "exec", "posix_spawn", "system", "Popen")])
sys.exit(status)
"""
    for arguments in ([], [], ["-o", "123", "--reconcile"]):
        done = scratch.python(code, "--dual-stack", *arguments, env={"PATH": ""})
        assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr

"""failing: how a run is made to fail, and what has to be as before when it has."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from istio_iptables import Facts, KernelError, Machine, Ruleset, build, configure

from ..support.scratch import (
    Result,
    Scratch,
    is_owned,
    wait_until,
)

OTHER = shlex.split("--dual-stack -b 80 -c eth2 -x 10.2.0.0/16 -m TPROXY -t 7")


def failed(done: Result, *texts: str) -> str:
    """Assert that a run failed as it should: exit 1, cause and remedy, no traceback. Returns the log."""
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    errors = [line.split("\t", 2)[2] for line in done.stderr.splitlines() if "\terror\t" in line]
    assert errors, done.stderr
    assert any(line.strip().startswith("what to do: ") and len(line) > 30 for line in errors), errors
    for text in texts:
        assert text in "\n".join(errors), errors
    return done.stderr


@contextmanager
def everything_stays(scratch: Scratch) -> Iterator[None]:
    """Nothing changes but counters that traffic changes; empty legacy tables may come into being."""
    before = scratch.state(counters=True)
    yield
    after = scratch.state(counters=True)
    assert comparable(after) == comparable(before)


def comparable(state: Mapping[str, str]) -> dict[str, object]:
    """A legacy table cannot be taken away, and one without rules or chains does nothing.

    Counters of legacy policies (not of rules) are left out: libiptc itself zeroes them with every change.
    """
    found: dict[str, object] = dict(state)
    # ip6tables-nft-restore (1.8.9) takes no counters, so owned rules come back without theirs.
    saved = state["ipv6 nft"].splitlines()
    found["ipv6 nft"] = [re.sub(r"^\[.*?\] ", "", line) if is_owned(line) else line for line in saved]
    # Chains that were away for a moment come last.
    text = re.sub(r" *packets \d+ bytes \d+ *|^\t?\}?\n", "", state["nft"], flags=re.MULTILINE)
    found["nft"] = [
        sorted(chain.strip() for chain in re.split(r"^(?=\t\w)", table, flags=re.MULTILINE))
        for table in sorted(re.split(r"^(?=table)", text, flags=re.MULTILINE))
    ]
    for key in ("rules -4", "rules -6"):  # the kernel chooses the priority anew for a rule that comes back
        found[key] = sorted(re.sub(r"^\d+:", "", line) for line in state[key].splitlines())
    for key in ("ipv4 legacy", "ipv6 legacy"):
        text = re.sub(r"^(:\S+ [A-Z]+) \[.*\]", r"\1", state[key], flags=re.MULTILINE)
        tables = re.split(r"^(?=\*)", text, flags=re.MULTILINE)
        found[key] = [table for table in tables if re.search(r"^\[|^:\S+ (-|DROP)", table, re.MULTILINE)]
    return found


@contextmanager
def with_owner(scratch: Scratch, table: str) -> Iterator[None]:
    """An nftables table that another process owns: the kernel lets no other process change it."""
    owner = scratch.spawn("nft", "-i")
    assert owner.stdin is not None
    owner.stdin.write(f"add table {table} {{ flags owner; }}\n")
    owner.stdin.flush()
    wait_until(lambda: table in scratch.nft("list", "tables"))
    yield
    owner.stdin.close()
    owner.wait(10)


class Broken(Machine):
    """The real kernel, until step number `fails_at`, which fails (as `error`) without being done."""

    fails_at = -1
    error: BaseException = KernelError("this step fails", "nothing: it is a test")

    def do(self, action: object) -> None:
        if self.fails_at == 0:
            self.fails_at -= 1
            raise self.error
        self.fails_at -= 1
        super().do(action)  # type: ignore[arg-type]


def wanted(*arguments: str, ipv6: bool = True) -> Ruleset:
    """Return the rules of a command line."""
    from istio_iptables.settings.go_flags import read_arguments

    given = {item.setting.name: item.text for item in read_arguments(arguments).settings}
    return build(configure(given, environment=Facts(ipv4=True, ipv6=ipv6)))


#: The tool, waiting for locks for another time than its own, in seconds.
WAITING = """
import sys
from istio_iptables.kernel.lock import Locks
Locks.__init__.__kwdefaults__["wait_limit"] = {seconds}
from istio_iptables.__main__ import main
sys.exit(main())
"""


def at_once(scratch: Scratch, *runs: list[str], same_lock: bool = True) -> list[int]:
    """Start runs together and return their exit codes. They wait for each other however long that takes."""
    children = [
        scratch.spawn(
            *(sys.executable, "-c", WAITING.format(seconds=300.0), *arguments),
            env={} if same_lock else {"XTABLES_LOCKFILE": str(scratch.directory / f"lock{number}")},
        )
        for number, arguments in enumerate(runs)
    ]
    outcomes = [child.communicate(timeout=300) for child in children]
    statuses = [child.returncode for child in children]
    for status, (_, errors) in zip(statuses, outcomes, strict=True):
        assert "Traceback" not in errors, errors
        if status:
            print(f"exit {status}: {errors}")
    return statuses


def hidden(*paths: str) -> list[str]:
    """Return a command prefix under which files cannot be used."""
    mounts = " && ".join(f"mount --bind /dev/null {Path(path).resolve()}" for path in paths)
    return ["unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh"]

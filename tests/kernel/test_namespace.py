"""Functions in another network namespace: this process stays where it is, whatever happens to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from istio_iptables import (
    KernelError,
    Machine,
    NetworkNamespace,
    Ruleset,
    SettingsError,
    build,
    configure,
    network_namespace,
)

from ..support.scratch import KERNEL, Scratch, wait_until

pytestmark = KERNEL


def where() -> tuple[str, int]:
    """The network namespace of this thread, and of the first thread of this process."""
    return os.readlink("/proc/thread-self/ns/net"), os.stat("/proc/self/ns/net").st_ino


@pytest.fixture
def there() -> Iterator[Scratch]:
    with Scratch(addresses=True) as scratch:
        yield scratch


@pytest.fixture
def inside(there: Scratch) -> Iterator[NetworkNamespace]:
    """Before and after, and in every thread, this process is where it was."""
    before, descriptors = where(), len(os.listdir("/proc/self/fd"))
    with network_namespace(there.path) as opened:
        yield opened
        assert where() == before
    assert where() == before
    assert len(os.listdir("/proc/self/fd")) == descriptors
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_function_runs_there_and_what_it_returns_comes_back(
    there: Scratch, inside: NetworkNamespace
) -> None:
    name, number = inside.run(where)
    assert (name, number) != where()
    assert number == os.stat(there.path).st_ino
    assert inside.run(divmod, 7, 2) == (3, 1)
    assert inside.run(sorted, [1, 2], reverse=True) == [2, 1]
    closure = object()
    assert inside.run(lambda: id(closure)) == id(closure), "it sees all that is in memory here"
    assert len(inside.run(lambda: b"x" * 10_000_000)) == 10_000_000


def test_by_name(there: Scratch) -> None:
    with network_namespace(there.name) as inside:
        assert inside.run(where)[1] == os.stat(there.path).st_ino
    with network_namespace(Path(there.path)) as inside:
        assert inside.run(where)[1] == os.stat(there.path).st_ino


def set_up() -> str:
    """The whole way: facts, settings, plan, change."""
    wanted = build(configure(inbound_ports="*", dual_stack=True))
    with Machine(cni_mode=True) as machine:
        prepared = machine.plan(wanted)
        prepared.apply()
        assert machine.plan(wanted).plan.actions == ()
    return prepared.choice.why


def test_rules_are_written_there_and_not_here(there: Scratch, inside: NetworkNamespace) -> None:
    with Scratch() as here, here.inside():
        before = here.state()
        assert inside.run(set_up)
        assert here.state() == before
    assert "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001" in there.save("legacy", "ipv4")
    assert "::6/128" in there.ip("-6", "address", "show", "dev", "lo")


@pytest.mark.parametrize(
    "error",
    [
        KernelError("a cause", "a remedy"),
        SettingsError(["one", "two"]),
        KeyboardInterrupt(),
        SystemExit(3),
        ZeroDivisionError("x"),
    ],
    ids=repr,
)
def test_an_exception_comes_back_whole(inside: NetworkNamespace, error: BaseException) -> None:
    def fails() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        inside.run(fails)
    assert str(caught.value) == str(error)
    assert vars(caught.value).items() >= vars(error).items()
    (note,) = caught.value.__notes__
    assert "in fails" in note, "where it was raised"


class Odd(Exception):
    """One that pickle copies and cannot make again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


def test_what_cannot_be_copied_is_an_error_that_says_so(inside: NetworkNamespace) -> None:
    def fails() -> None:
        raise Odd(1, 2)

    with pytest.raises(TypeError, match=r"^what the function raised cannot be sent to this process: "):
        inside.run(fails)
    with pytest.raises(
        TypeError, match=r"^what the function returned .* a Machine cannot be sent to another"
    ):
        inside.run(lambda: Machine(writing=False))


def test_a_process_that_ends_without_an_answer(inside: NetworkNamespace) -> None:
    with pytest.raises(KernelError, match=r"ended without an answer \(exit status -9\)"):
        inside.run(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(KernelError, match=r"ended without an answer \(exit status 7\)"):
        inside.run(lambda: os._exit(7))


def test_in_a_thread_and_in_several_at_once(there: Scratch) -> None:
    found: list[Any] = []
    with Scratch() as other:
        threads = [
            threading.Thread(target=lambda path=path: found.append((path, _in(path))))
            for path in (there.path, other.path) * 4
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(found) == 8
        for path, numbers in found:
            assert numbers == [os.stat(path).st_ino] * 3


def _in(path: str) -> list[int]:
    with network_namespace(path) as inside:
        return [inside.run(where)[1] for _ in range(3)]


def test_what_is_printed_is_printed_once(there: Scratch) -> None:
    code = f"""
import sys
from istio_iptables import network_namespace
print("before")
with network_namespace({there.path!r}) as inside:
    inside.run(print, "inside")
print("after")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "before\ninside\nafter\n"


def test_ctrl_c_interrupts_the_function_and_waits_for_it(there: Scratch, tmp_path: Path) -> None:
    """The signal goes to this process alone, as from kill(1)."""
    code = f"""
import pathlib, time
from istio_iptables import network_namespace
def works():
    pathlib.Path({str(tmp_path / "started")!r}).touch()
    try:
        time.sleep(60)
    finally:
        pathlib.Path({str(tmp_path / "put back")!r}).touch()
with network_namespace({there.path!r}) as inside:
    try:
        inside.run(works)
    except KeyboardInterrupt:
        print("interrupted", pathlib.Path({str(tmp_path / "put back")!r}).exists())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        wait_until(lambda: (tmp_path / "started").exists())
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=60)
    assert out == "interrupted True\n"


def test_no_such_namespace(tmp_path: Path) -> None:
    with (
        pytest.raises(SettingsError, match=r"^network_namespace: .* cannot be opened"),
        network_namespace("no"),
    ):
        pass
    with pytest.raises(SettingsError, match=r"^network_namespace: .* is not a network namespace"):
        network_namespace(tmp_path).__enter__()


def test_it_is_opened_first_and_closed_last(there: Scratch) -> None:
    namespace = network_namespace(there.path)
    with pytest.raises(RuntimeError, match="use `with network_namespace"):
        namespace.run(where)
    with namespace as inside:
        assert inside.run(lambda: 1) == 1
    with pytest.raises(RuntimeError, match="use `with network_namespace"):
        inside.run(where)


def test_cleanup_there(there: Scratch, inside: NetworkNamespace) -> None:
    def clean() -> int:
        with Machine() as machine:
            prepared = machine.plan(Ruleset())
            prepared.apply()
            return len(prepared.plan.actions)

    os.environ["XTABLES_LOCKFILE"] = str(there.lock)
    try:
        inside.run(set_up)
        assert inside.run(clean) > 1
        assert inside.run(clean) == 0
    finally:
        del os.environ["XTABLES_LOCKFILE"]
    assert "ISTIO" not in there.save("legacy", "ipv4")

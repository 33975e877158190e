"""What the system refuses is told in words, with what to do: docs/troubleshooting.md."""

from __future__ import annotations

import errno
import os

import pytest

from istio_iptables import KernelError, LocalAddress, remedies
from istio_iptables.cli import handlers
from istio_iptables.kernel import process, routing
from istio_iptables.kernel.iptables_command import _remedy as of_iptables
from istio_iptables.kernel.netlink.messages import refusal
from istio_iptables.kernel.nft_command import _remedy as of_nft
from istio_iptables.rules.istio import PASSTHROUGH_IPV6
from istio_iptables.settings.go_flags import read_arguments


def refused(number: int, *filename: str) -> OSError:
    return OSError(number, os.strerror(number), *filename)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "fs.file-max"),
        (errno.EAGAIN, "ulimit -u"),
        (errno.ENOMEM, "limits.memory"),
        (errno.ENOBUFS, "limits.memory"),
        (errno.EPERM, "seccomp"),
        (errno.EIO, "dmesg"),
    ],
)
@pytest.mark.parametrize("filename", [(), ("/proc/self/status",)])
def test_an_error_of_the_system_has_words_and_a_remedy_of_its_own(
    number: int, advice: str, filename: tuple[str, ...]
):
    told = remedies.system_refused(refused(number, *filename))
    assert os.strerror(number) in told.cause
    assert "[Errno" not in str(told)
    assert advice in told.remedy
    assert all(name in told.cause for name in filename)


def test_an_error_of_netlink_says_what_was_being_done():
    told = remedies.system_refused(refusal(errno.ENOBUFS, "list ipv4 rules"))
    assert told.cause == "list ipv4 rules: No buffer space available"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (refused(errno.EMFILE), "Too many open files\n"),
        (MemoryError(), "there is not enough memory\n"),
        (ModuleNotFoundError("No module named 'heapq'"), "cannot be loaded: No module named 'heapq'\n"),
    ],
)
def test_what_a_command_meets_is_told(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def meets(*_: object) -> None:
        raise error

    monkeypatch.setattr(handlers, "Context", meets)
    assert handlers.handle(read_arguments([]), {}) == 1
    text = capsys.readouterr().err
    assert told.strip() in text
    assert "what to do: " in text
    assert "[Errno" not in text
    assert "unexpected" not in text


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EAGAIN, "limit of processes"),
        (errno.ENOMEM, "more memory"),
        (errno.ENOEXEC, "reinstall its package"),
    ],
)
def test_a_command_that_cannot_be_started(number: int, advice: str, monkeypatch: pytest.MonkeyPatch):
    def spawn(*_: object, **__: object) -> int:
        raise refused(number)

    monkeypatch.setattr(os, "posix_spawn", spawn)
    with pytest.raises(KernelError) as caught:
        process.run(("/bin/true",))
    assert advice in caught.value.remedy


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.EACCES, "IPv6 is switched off"), (errno.ENOMEM, "more memory"), (errno.EIO, "dmesg")],
)
def test_an_address_that_the_kernel_refuses(number: int, advice: str, monkeypatch: pytest.MonkeyPatch):
    def add(*_: object, **__: object) -> None:
        raise refused(number)

    monkeypatch.setattr("istio_iptables.kernel.netlink.routing.add_address", add)
    monkeypatch.setattr(os.path, "exists", lambda _: True)
    with pytest.raises(KernelError) as caught:
        routing.add(LocalAddress(PASSTHROUGH_IPV6))
    assert advice in caught.value.remedy


def test_a_process_that_was_killed():
    for remedy in (of_iptables, of_nft):
        assert "root" not in remedy("a signal ended it (9)")
        assert "limits.memory" in remedy("a signal ended it (9)")
        assert "limits.memory" in remedy("getsockopt failed strangely: Cannot allocate memory")
        assert "ulimit -n" in remedy("could not open socket: Too many open files")

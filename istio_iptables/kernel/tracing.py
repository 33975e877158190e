"""tracing: have the kernel report the rules that real packets meet, for as long as this process lives.

A table with `flags owner` (nft(8), Linux 5.12) belongs to the netlink socket that made it, and is gone when
that closes, by SIGKILL too. Its rule sets `meta nftrace` before every other chain; nf_tables and legacy
iptables both look at that. Nothing is added to anybody's table, so no rule changes its number. libnftables is
used, not the command nft, since its socket is this process's own.
"""

from __future__ import annotations

import ctypes
import os

from ..errors import KernelError
from ..rules.istio import TRACE_TABLE
from .netlink.packet_trace import TraceSockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Literal, Self

    from .netlink.packet_trace import TraceEvent

_LIBRARY = "libnftables.so.1"
#: Before the raw tables (-300), and so before every table of iptables.
_PRIORITY = -301
#: Where the kernel keeps the name of the logger of a family, per network namespace (PF_INET, PF_INET6).
_LOGGERS = {number: f"/proc/sys/net/netfilter/nf_log/{number}" for number in (2, 10)}
_LOGGER = "nfnetlink_log"


class Tracing:
    """Traces the packets that nft(8) conditions describe, at the hook `output` or `prerouting`.

    A context manager. `unseen` says what cannot be seen, and why; it is empty if everything can. `table` is
    the name of the table that traces, of this process alone. Raises KernelError if the kernel or the library
    cannot do it.
    """

    def __init__(self, hook: Literal["output", "prerouting"], conditions: str) -> None:
        self.table = f"{TRACE_TABLE}-{os.getpid()}"
        self._script = (
            f"table inet {self.table} {{\n flags owner;\n chain {hook} {{\n"
            f" type filter hook {hook} priority {_PRIORITY};\n {conditions} meta nftrace set 1\n }}\n}}\n"
        )
        self._sockets = TraceSockets()
        self._library: ctypes.CDLL | None = None
        self._context: int | None = None
        self._guard: _Guard | None = None
        self.unseen = ""

    def __enter__(self) -> Self:
        try:
            self._sockets.__enter__()
            self._legacy()
            self._make_table()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._library and self._context:
            self._library.nft_ctx_free(self._context)  # closes the socket: the table is gone
            self._context = None
        if self._guard:
            self._guard.restore()
        self._sockets.__exit__(None, None, None)

    @property
    def lost(self) -> int:
        """How often events came faster than they were read, so that some are missing."""
        return self._sockets.lost

    def read(self, seconds: float | None = None) -> list[TraceEvent]:
        """Wait for events, by default for ever, and return all that are there then; none after the time."""
        return self._sockets.read(seconds)

    def _make_table(self) -> None:
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise KernelError(
                f"{_LIBRARY} cannot be loaded: packets cannot be traced",
                "install the package libnftables1 (it comes with nftables)",
            ) from error
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
        library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._library, self._context = library, library.nft_ctx_new(0)
        library.nft_ctx_buffer_error(self._context)
        if library.nft_run_cmd_from_buffer(self._context, self._script.encode()):
            said = os.fsdecode(library.nft_ctx_get_error_buffer(self._context) or b"")
            first = said.strip().splitlines()[:1]
            raise KernelError(
                f"the kernel takes no rule for tracing: {' '.join(first) or 'no reason was given'}",
                "tables with `flags owner` need Linux 5.12 and nftables 0.9.9",
            )

    def _legacy(self) -> None:
        """Have legacy tables log to this process, or say why they cannot."""
        try:
            self._sockets.bind_log()
            self._guard = _Guard()
        except OSError as error:
            self.unseen = f"rules of legacy tables are not seen: {error.strerror}"


class _Guard:
    """Sets the loggers of this network namespace, and puts them back, also when this process is killed.

    A child process waits for the end of this one: it holds the reading end of a pipe.
    """

    def __init__(self) -> None:
        before = {}
        for number, path in _LOGGERS.items():
            try:
                with open(path, encoding="ascii") as file:
                    before[number] = file.read().strip()
            except FileNotFoundError:
                continue  # the family is not there
        changed = {number: name for number, name in before.items() if name != _LOGGER}
        self._writer = -1
        if changed:
            self._start(changed)
            for number in changed:
                _set_logger(number, _LOGGER)

    def _start(self, before: dict[int, str]) -> None:
        reader, self._writer = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            try:
                os.setsid()  # Ctrl-C at the terminal is not for it
                os.close(self._writer)
                os.read(reader, 1)
                for number, name in before.items():
                    _set_logger(number, name)
            finally:
                os._exit(0)
        os.close(reader)

    def restore(self) -> None:
        """Put the loggers back, and wait until that is done."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1
            os.waitpid(self._child, 0)


def _set_logger(number: int, name: str) -> None:
    with open(_LOGGERS[number], "w", encoding="ascii") as file:
        file.write(name)

"""libiptc: the legacy tables, written through python-iptables and the kernel's own replace operation.

For writing each family has a process of its own, forked before the library is loaded: IPv4 and IPv6 cannot
share one, and the C library may end the process that it is in. That process holds a table from opening it to
committing the edit; the caller holds the xtables lock from before reading, as libiptc takes none. Reading
needs neither the process nor the library (read_tables.py).
"""

from __future__ import annotations

import errno
import marshal
import os
import struct

from ...change.actions import IPTABLES_LEGACY
from ...errors import Busy, KernelError
from ...formats import IPTABLES
from ...rules.edit import CreateChain, Insert, RemoveChain, ReplaceRules
from ...rules.model import TABLES, Chain, Table
from ..iptables_command import IptablesCommand
from ..proc import existing_legacy_tables, root_remedy
from ..signals import SignalsDeferred, ignore
from . import read_tables
from .entries import Decoder, Encoder
from .iptc_loader import LibiptcMissing, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ...change.actions import EditTable, Location, UnreadableTable
    from ...rules.edit import Step, TableEdit
    from ...rules.model import Family, TableName


class Libiptc:
    """The Backend that writes legacy tables through libiptc."""

    name = "libiptc"
    location: Location = IPTABLES_LEGACY

    def __init__(self) -> None:
        self._workers: dict[Family, _Worker] = {}

    def _worker(self, family: Family) -> _Worker:
        if family in self._workers and not self._workers[family].alive:
            self._workers.pop(family).hang_up()  # it died: the remaining actions need another
        if family not in self._workers:
            # Else Ctrl-C could leave a process that is not in the table and has the pipes of others.
            with SignalsDeferred():
                self._workers[family] = _Worker(family)
        return self._workers[family]

    def read(self, family: Family) -> tuple[Table, ...]:
        """Return the tables of this tool that exist."""
        existing = existing_legacy_tables(family)
        names = [name for name in TABLES if name in existing]
        tables = []
        for name in names:
            try:
                tables.append(_table(family, name, read_tables.read(family, name)))
            except OSError as error:
                raise explain(family, f"open the table {name}", error.errno or errno.EIO) from error
        return _in_words(tuple(tables), family)

    def require(self) -> None:
        """Do nothing: `refusal` loads the library and raises an error that names what is missing."""

    def unreadable(self, family: Family) -> tuple[UnreadableTable, ...]:
        """Return nothing: every legacy table can be read."""
        return ()

    def holds_other_rules(self) -> bool:
        """Tell whether a table that this tool does not read has rules, as far as the command can tell."""
        return IptablesCommand(IPTABLES_LEGACY).holds_other_rules()

    def lacks_nat(self) -> bool:
        """Tell whether the kernel has no nat table. This makes the table: call it just before writing."""
        self.load("ipv4")  # make no table that cannot be written
        try:
            return not read_tables.exists("ipv4", "nat")
        except OSError as error:
            raise explain("ipv4", "open the table nat", error.errno or errno.EIO) from error

    def refusal(self, edit: TableEdit) -> str:
        """Return an empty text: a rule takes as many matches as fit in 64 KiB.

        Raises KernelError if the library cannot be loaded.
        """
        self.load(edit.family)
        return ""

    def load(self, family: Family) -> None:
        """Load the library for a family, in its process. Raises KernelError if that cannot be done."""
        self._worker(family).call("ready")

    def do(self, action: EditTable) -> None:
        """Make the edit of an action."""
        self.apply(action.edit)

    def apply(self, edit: TableEdit) -> None:
        """Make an edit by one replace of its table."""
        worker = self._worker(edit.family)  # loads the library while the rules are encoded
        encoder = Encoder(edit.family)
        operations = [operation for step in edit.steps for operation in _operations(step, encoder)]
        worker.call("edit", edit.table, operations)

    def close(self) -> None:
        """End the processes. First close all pipes, since later processes have copies of earlier ones."""
        for worker in self._workers.values():
            worker.hang_up()
        for worker in self._workers.values():
            worker.wait()
        self._workers.clear()


def _in_words(tables: tuple[Table, ...], family: Family) -> tuple[Table, ...]:
    """Return the tables with what libiptc cannot name, the parts of foreign rules, as iptables-save names it.

    Without the command, or if the rules are other ones meanwhile, these parts keep the extensions' names.
    """
    if not any(rule.raw for table in tables for chain in table.chains for rule in chain.rules):
        return tables
    command = IptablesCommand(IPTABLES_LEGACY)
    if not command.available():
        return tables
    printed = {table.name: table for table in command.read(family)}
    return tuple(
        table.replace(
            chains=tuple(
                _chain_in_words(chain, printed[table.name].chain(chain.name)) for chain in table.chains
            )
        )
        if table.name in printed
        else table
        for table in tables
    )


def _chain_in_words(chain: Chain, printed: Chain) -> Chain:
    if len(chain.rules) != len(printed.rules):
        return chain
    pairs = zip(chain.rules, printed.rules, strict=True)
    return chain.replace(
        rules=tuple(
            rule.replace(matches=words.matches, target=words.target) if rule.raw else rule
            for rule, words in pairs
        )
    )


def _operations(step: Step, encoder: Encoder) -> Iterator[tuple[str, str, list[tuple[Any, ...]]]]:
    """Return a step as calls of one function of libiptc for one chain: their other arguments."""
    if isinstance(step, CreateChain):
        yield "create_chain", step.chain, [()]
    elif isinstance(step, RemoveChain):
        yield "delete_chain", step.chain, [()]
    elif isinstance(step, ReplaceRules):
        if step.before:
            yield "flush_entries", step.chain, [()]
        yield "append_entry", step.chain, [(encoder.encode(rule),) for rule in step.after]
    elif isinstance(step, Insert):
        yield "insert_entry", step.chain, [(encoder.encode(step.rule), step.position - 1)]
    else:
        yield "delete_num_entry", step.chain, [(step.position - 1,)]


def _table(family: Family, name: TableName, chains: list[read_tables.Chain]) -> Table:
    decoder = Decoder(family, frozenset(chain for chain, _ in chains))
    return Table(
        family,
        name,
        tuple(
            Chain(chain, tuple(decoder.decode(entry, target) for entry, target in entries))
            for chain, entries in chains
        ),
    )


# --- the process of one family --------------------------------------------------------------

_LENGTH = struct.Struct("=I")
#: How a request went; what follows is its result, what is missing, or the operation and its errno.
_DONE, _MISSING, _REFUSED = "done", "missing", "refused"
_SIGKILL = 9


class _Worker:
    """A forked process that holds the tables of one family, and the pipes to it."""

    def __init__(self, family: Family) -> None:
        self._family = family
        requests_read, self._requests = os.pipe()
        self._answers, answers_write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:  # the child: never returns, and never runs the parent's cleanup
            os.close(self._requests)
            os.close(self._answers)
            try:
                ignore()  # a signal may be sent to the whole process group; the parent decides
                _serve(family, requests_read, answers_write)
            finally:
                os._exit(0)
        os.close(requests_read)
        os.close(answers_write)

    @property
    def alive(self) -> bool:
        """False once the process is known to have ended."""
        return self._pid != 0

    def call(self, *request: Any) -> Any:
        """Have the process do something and return what it returns.

        Raises KernelError, or OSError; what the process was doing may be done then.
        """
        try:
            _send(self._requests, request)
            outcome, value = _receive(self._answers)
        except (EOFError, BrokenPipeError):
            from ...remedies import worker_ended

            raise worker_ended(self._family, self.wait()) from None
        except BaseException:  # the pipes may hold half a message: it cannot be asked again
            os.kill(self._pid, _SIGKILL)
            self.wait()
            raise
        if outcome == _MISSING:
            from ...remedies import libiptc_missing

            raise libiptc_missing(value)
        if outcome == _REFUSED:
            raise explain(self._family, *value)
        return value

    def hang_up(self) -> None:
        """Close the pipes, which makes the process end."""
        os.close(self._requests)
        os.close(self._answers)

    def wait(self) -> int:
        """Wait for the end of the process and return its exit status, 0 if it has been waited for."""
        if not self._pid:
            return 0
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)


def _send(pipe: int, value: Any) -> None:
    data = marshal.dumps(value)
    data = _LENGTH.pack(len(data)) + data
    view = memoryview(data)
    while view:
        view = view[os.write(pipe, view) :]


def _receive(pipe: int) -> Any:
    return marshal.loads(_read_exactly(pipe, _LENGTH.unpack(_read_exactly(pipe, _LENGTH.size))[0]))


def _read_exactly(pipe: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(pipe, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _serve(family: Family, requests: int, answers: int) -> None:
    """Answer requests until the pipe is closed: ("ready",) and ("edit", table, operations)."""
    tables = None
    while True:
        try:
            request = _receive(requests)
        except EOFError:
            return
        answer: tuple[str, Any]
        try:
            tables = tables or _Tables(family)
            answer = _DONE, getattr(tables, request[0])(*request[1:])
        except LibiptcMissing as error:
            answer = _MISSING, str(error)
        except _Refused as refused:
            answer = _REFUSED, (refused.operation, refused.number)
        except OSError as error:
            answer = _REFUSED, (f"do `{' '.join(map(str, request[:2]))}`", error.errno or errno.EIO)
        except Exception as error:  # reported by the parent; here it would be lost
            answer = _REFUSED, (f"{' '.join(map(str, request[:2]))} ({error!r})", errno.EIO)
        _send(answers, answer)


class _Refused(Exception):
    def __init__(self, operation: str, number: int) -> None:
        super().__init__(operation)
        self.operation = operation
        self.number = number


class _Tables:
    """libiptc's tables of one family, in the process of that family."""

    def __init__(self, family: Family) -> None:
        self._class = load(family)
        from iptc.ip4tc import IPTCError, _get_errno_loc

        self._error: type[Exception] = IPTCError
        self._errno_location = _get_errno_loc

    def _errno(self) -> int:
        return int(self._errno_location()[0])

    def ready(self) -> None:
        """Do nothing: an answer shows that the library is loaded."""

    def _open(self, name: str) -> Any:
        """Return the table as it is now. autocommit is off: it hides errors of the kernel."""
        try:
            table = self._class(name, autocommit=False)
            table.refresh()
        except self._error:
            raise _Refused(f"open the table {name}", self._errno()) from None
        return table

    def edit(self, name: str, operations: list[tuple[str, str, list[tuple[Any, ...]]]]) -> None:
        """Do operations on the table in memory, then replace the kernel's in one go.

        The handle must not be used again then; the next edit opens the table anew.
        """
        table = self._open(name)
        calls, handle = table._iptc, table._handle
        for function, chain, all_arguments in operations:
            call, label = getattr(calls, f"iptc_{function}"), chain.encode()
            for arguments in all_arguments:
                if not call(label, *arguments, handle):
                    raise _Refused(f"{function} in chain {chain} of the table {name}", self._errno())
        if not calls.iptc_commit(handle):
            raise _Refused(f"commit the table {name}", self._errno())


def explain(family: Family, operation: str, number: int) -> KernelError:
    """Return the error for a failure of libiptc, with the remedy that its errno suggests."""
    cause = f"libiptc ({family}) could not {operation}: {os.strerror(number)}"
    if number in (errno.EPERM, errno.EACCES):
        remedy = root_remedy("NET_ADMIN", "NET_RAW")
    elif number in (errno.ENOENT, errno.ENOPROTOOPT):
        from ...remedies import legacy_lacking

        remedy = legacy_lacking(IPTABLES[family])
    elif number == errno.EAGAIN:
        retry = "another program changed the table at the same time without the xtables lock: run again"
        return Busy(cause, retry)
    else:
        from ...remedies import is_scarce, of_errno

        remedy = of_errno(number) if is_scarce(number) else "see the kernel's log (dmesg) for what it refused"
    return KernelError(cause, remedy)

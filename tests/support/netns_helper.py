"""netns_helper: what runs inside a test's network namespace: it makes calls, and answers them.

netns.py starts it as `python -I -S netns_helper.py`, so it imports only the standard library. Orders come in
on standard input, one a line; each is answered by a line on standard output.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import json
import os
import selectors
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

#: How long a caller waits for an answer, in seconds. No packet gets lost: a later answer would not come
#: either.
CALL_LIMIT = 5.0
#: How long to wait where no answer is expected, in seconds.
SILENCE_LIMIT = 0.3

Endpoint: TypeAlias = tuple[str, int]
#: For source ports: each is used once.
_numbers = itertools.count()
_SO_ORIGINAL_DST = 80  # the same number for both families: linux/netfilter_ipv4.h, ip6_tables.h
_IP_PKTINFO, _IP_TRANSPARENT, _IPV6_TRANSPARENT, _IPV6_FREEBIND = 8, 19, 75, 78
_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "ack": 16}


def _helper() -> None:
    os.setgroups([])
    alive, keep = os.pipe()  # listeners end when no process holds the other end any more
    actions: dict[str, Callable[..., dict[str, Any]]] = {
        "sysctl": _sysctl,
        "connect": connect,
        "query": query,
        "provoke": _provoke,
        "listening": _listening_ports,
        "listen": functools.partial(_listen, alive, keep),
    }
    for line in sys.stdin:
        request = json.loads(line)
        action = request.pop("do")
        try:
            answer = actions[action](**request)
        except OSError as error:
            answer = {"error": _word(error)}
        print(json.dumps(answer), flush=True)


def _word(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    return "refused" if isinstance(error, ConnectionRefusedError) else str(error)


def _sysctl(name: str, value: str) -> dict[str, Any]:
    Path("/proc/sys", name).write_text(value)
    return {}


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@contextlib.contextmanager
def _socket_of(uid: int, gid: int, address: str, kind: socket.SocketKind) -> Iterator[socket.socket]:
    """Make a socket that belongs to a user and a group; netfilter sees the user who called socket(2)."""
    os.setegid(gid)
    os.seteuid(uid)
    try:
        made = socket.socket(_family(address), kind)
    finally:
        os.seteuid(0)
        os.setegid(0)
    with made:
        yield made


def _make_transparent(made: socket.socket) -> None:
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    else:
        made.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)


def _dial(
    made: socket.socket, address: str, port: int, source: Sequence[Any] | None, mark: int, transparent: bool
) -> None:
    if mark:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    if transparent:
        _make_transparent(made)
    if source:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((source[0], source[1]))
    made.connect((address, port))


def connect(
    address: str,
    port: int,
    uid: int = 0,
    gid: int = 0,
    source: Sequence[Any] | None = None,
    mark: int = 0,
    transparent: bool = False,
    limit: float = CALL_LIMIT,
) -> dict[str, Any]:
    """Connect as a user, from a source (address, port) if given, and read one line.

    `mark` is SO_MARK; `transparent` makes the source any address at all (IP_TRANSPARENT).
    """
    with _socket_of(uid, gid, address, socket.SOCK_STREAM) as made:
        made.settimeout(limit)
        _dial(made, address, port, source, mark, transparent)
        with made.makefile() as stream:
            line = stream.readline()
        return _seen_by_caller(made, line)


def query(
    address: str,
    port: int,
    uid: int = 0,
    gid: int = 0,
    source: Sequence[Any] | None = None,
    limit: float = CALL_LIMIT,
) -> dict[str, Any]:
    """Send a datagram as a user and read the answer; one from another address does not count."""
    with _socket_of(uid, gid, address, socket.SOCK_DGRAM) as made:
        made.settimeout(limit)
        _dial(made, address, port, source, 0, False)
        made.send(b"?")
        return _seen_by_caller(made, made.recv(2048).decode())


def _seen_by_caller(made: socket.socket, line: str) -> dict[str, Any]:
    local = made.getsockname()[:2]
    return {"server": json.loads(line), "local": local} if line else {"error": "closed", "local": local}


def _provoke(address: str, port: int, source: str, flags: Sequence[str]) -> dict[str, Any]:
    """Send one TCP segment and see whether a reset comes back soon."""
    own = 20000 + next(_numbers)  # no connection had or has it: it is below ip_local_port_range
    family = _family(address)
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP) as made:
        made.bind((source, 0))
        bits = sum(_FLAGS[flag] for flag in flags)
        segment = struct.pack("!HHIIBBHHH", own, port, 1000, 2000, 5 << 4, bits, 1024, 0, 0)
        pseudo = socket.inet_pton(family, source) + socket.inet_pton(family, address)
        pseudo += struct.pack("!II", len(segment), socket.IPPROTO_TCP)
        checksum = struct.pack("!H", _checksum(pseudo + segment))
        made.sendto(segment[:16] + checksum + segment[18:], (address, 0))
        deadline = time.monotonic() + SILENCE_LIMIT
        while (left := deadline - time.monotonic()) > 0:
            made.settimeout(left)
            try:
                packet, (peer, *_) = made.recvfrom(2048)
            except TimeoutError:
                break
            start = 0 if family == socket.AF_INET6 else (packet[0] & 15) * 4
            ports = struct.unpack_from("!HH", packet, start)
            if peer == address and ports == (port, own) and packet[start + 13] & _FLAGS["rst"]:
                return {"answer": "reset"}
    return {"answer": "silence"}


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


# --- inside a namespace: listeners ----------------------------------------------------------


def _listen(alive: int, keep: int, **arguments: Any) -> dict[str, Any]:
    """Fork a listener and return when it listens."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(keep)
        os.close(read_end)
        try:
            _listener(alive, write_end, **arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(write_end)
    with os.fdopen(read_end) as stream:
        answer: dict[str, Any] = json.loads(stream.read() or '{"error": "see the helper\'s errors"}')
    return {"pid": pid, **answer}


def _listener(
    alive: int,
    ready: int,
    *,
    name: str,
    tcp: Sequence[int],
    udp: Sequence[int],
    addresses: Sequence[str],
    uid: int,
    gid: int,
    transparent: bool,
    echo: bool,
    log: str,
) -> None:
    """Answer calls for as long as the helper lives."""
    with open(log, "ab", buffering=0) as record, open(os.devnull, "r+b") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)  # the sockets below belong to this user
        with selectors.DefaultSelector() as selector:
            selector.register(alive, selectors.EVENT_READ)
            for address in addresses:
                for kind, ports in ((socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)):
                    for port in ports:
                        made = _listening(kind, address, port, transparent)
                        selector.register(made, selectors.EVENT_READ, (kind, port))
            os.write(ready, b"{}")
            os.close(ready)
            while True:
                for key, _ in selector.select():
                    if key.fd == alive:
                        return
                    assert isinstance(key.fileobj, socket.socket)
                    kind, port = key.data
                    if kind == socket.SOCK_STREAM:
                        _answer_connection(key.fileobj, name, port, record, _echo if echo else _say)
                    else:
                        _answer_datagram(key.fileobj, name, port, record)


def _listening_ports() -> dict[str, Any]:
    """Return the TCP ports that anybody listens on."""
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path("/proc/self/net", name).read_text().splitlines()[1:]
    ]
    return {"ports": [int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"]}


def _listening(kind: socket.SocketKind, address: str, port: int, transparent: bool) -> socket.socket:
    made = socket.socket(_family(address), kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if transparent:
        _make_transparent(made)
    if kind == socket.SOCK_DGRAM:  # to answer from the address that was asked
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    made.bind((address, port))
    if kind == socket.SOCK_STREAM:
        made.listen(64)
    return made


def _answer_connection(
    listening: socket.socket,
    name: str,
    port: int,
    record: IO[bytes],
    answer: Callable[[socket.socket, bytes], None],
) -> None:
    connection, peer = listening.accept()
    local = connection.getsockname()
    report = {
        "name": name,
        "port": port,
        "local": local[:2],
        "peer": peer[:2],
        "original": _original(connection),
    }
    line = json.dumps(report).encode() + b"\n"
    record.write(line)
    threading.Thread(target=answer, args=(connection, line), daemon=True).start()


def _say(connection: socket.socket, line: bytes) -> None:
    """Send the line, then let the other side finish: closing on unread data would be a reset."""
    with connection, contextlib.suppress(OSError):
        connection.settimeout(CALL_LIMIT)
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass


def _echo(connection: socket.socket, line: bytes) -> None:
    """Send the line, then whatever comes, for as long as anything may come."""
    with connection, contextlib.suppress(OSError):
        connection.sendall(line)
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def _original(connection: socket.socket) -> Endpoint | None:
    """Return where the connection was meant to go before it was redirected (SO_ORIGINAL_DST)."""
    try:
        if connection.family == socket.AF_INET6:
            data = connection.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, 28)
            return socket.inet_ntop(socket.AF_INET6, data[8:24]), int.from_bytes(data[2:4], "big")
        data = connection.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, 16)
        return socket.inet_ntop(socket.AF_INET, data[4:8]), int.from_bytes(data[2:4], "big")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOPROTOOPT):  # not tracked; no connection tracking at all
            return None
        raise


def _answer_datagram(listening: socket.socket, name: str, port: int, record: IO[bytes]) -> None:
    _, control, _, peer = listening.recvmsg(2048, 256)
    (level, kind, data), *_ = control
    asked = data[:16] if listening.family == socket.AF_INET6 else data[8:12]
    local = (socket.inet_ntop(listening.family, asked), listening.getsockname()[1])
    report = {"name": name, "port": port, "local": local, "peer": peer[:2], "original": None}
    line = json.dumps(report).encode() + b"\n"
    record.write(line)
    # The kernel chooses the interface; only the address is given back.
    source = asked + bytes(4) if listening.family == socket.AF_INET6 else bytes(4) + asked + bytes(4)
    with contextlib.suppress(OSError):
        listening.sendmsg([line], [(level, kind, source)], 0, peer)


if __name__ == "__main__":
    _helper()

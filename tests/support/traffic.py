"""traffic: reads the table of connections, tests/kernel/traffic.txt, and makes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.netns import Namespace, Pod
from tests.support.netns_helper import SILENCE_LIMIT
from tests.support.scenarios import ADDRESSES, OWNERS, Row, Scenario, resolve, word

ROW = re.compile(
    r"""
    (?: v(?P<version>[46]) \s )?
    (?P<who> [a-z]+ | \d+:\d+ )
    (?: \s mark \s (?P<mark>\d+) )?
    (?: \s from \s (?P<source>\S+) )?
    \s > \s (?P<address>\S+) : (?P<port>\d+) (?: / (?P<kind>[a-z+]+) )?
    \s+ (?P<arrives> app | world | reset | silence | timeout | (?:proxy|agent|tproxy):\d+ )
    (?: \s+ \# .* )?
    """,
    re.VERBOSE,
)
AGENT_PORT = 15053


def read_table(text: str) -> Iterator[Scenario]:
    """Return the paragraphs of the table; a line that is none of its kinds is a mistake."""
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line.rstrip() for line in paragraph.splitlines() if line and not line.startswith("#")]
        if not lines:
            continue
        scenario = Scenario(lines[0])
        for line in lines[1:]:
            if line.startswith("$"):
                scenario.describe(line[1:])
            else:
                scenario.rows.append(read_row(line))
        assert scenario.rows, f"{scenario.title}: no connections"
        yield scenario


def read_row(line: str) -> Row:
    found = ROW.fullmatch(line)
    assert found, f"not a row: {line!r}"
    who, version, address = found["who"], found["version"], found["address"]
    uid, gid = OWNERS.get(who, who).split(":")
    assert address in ADDRESSES or version, f"an address says nothing of the other family: {line!r}"
    return Row(
        text=" ".join(line.partition("#")[0].rpartition(found["arrives"])[0].split()),
        who=who if who in ("client", "vm") else "pod",
        uid=int(uid),
        gid=int(gid),
        mark=int(found["mark"] or 0),
        source=found["source"] or "",
        address=address,
        port=int(found["port"]),
        kind=found["kind"] or "tcp",
        versions=(int(version),) if version else (4, 6),
        arrives=found["arrives"],
    )


SCENARIOS = list(
    read_table((Path(__file__).parents[1] / "kernel" / "traffic.txt").read_text(encoding="utf-8"))
)


def source_of(row: Row, version: int) -> tuple[str, int] | None:
    if not row.source:
        return None
    name, _, port = row.source.partition(":")
    return resolve(name, version), int(port or 0)


def arrival(row: Row, version: int, pod: Pod) -> str:
    """Make the connection and say, as the table writes it, where it arrived."""
    callers: dict[str, Namespace | None] = {"client": pod.client, "vm": pod.vm, "pod": pod}
    caller, address = callers[row.who], resolve(row.address, version)
    assert caller, "this pod has no virtual machine: say pod=4+6+vm"
    if row.kind not in ("tcp", "udp"):
        return caller.provoke(address, row.port, resolve(row.who, version), row.kind.split("+"))
    how: dict[str, Any] = {"uid": row.uid, "gid": row.gid, "source": source_of(row, version)}
    if row.arrives == "timeout":
        how["limit"] = SILENCE_LIMIT
    if row.kind == "udp":
        return word(caller.query(address, row.port, **how), row.kind)
    call = caller.connect(address, row.port, mark=row.mark, transparent=bool(row.mark), **how)
    return word(call, row.kind)


def populate(pod: Pod, scenario: Scenario) -> None:
    """Start everybody that a row could lead to, rightly or wrongly."""
    uid, gid = scenario.proxy
    taken = scenario.proxy_ports()
    tcp, udp = ({row.port for row in scenario.rows if row.kind == kind} for kind in ("tcp", "udp"))
    pod.client.listen("world", tcp=tcp, udp=udp)
    pod.listen("app", tcp=tcp - taken - {AGENT_PORT}, udp=udp - {AGENT_PORT}, uid=1000, gid=1000)
    pod.listen("proxy", tcp=taken, uid=uid, gid=gid, transparent=scenario.tproxy and uid == 0)
    # On these addresses, as Istio's does: it answers from the one that was asked.
    pod.listen(
        "agent",
        tcp=[AGENT_PORT],
        udp=[AGENT_PORT],
        addresses=[a for a, on in (("127.0.0.1", True), ("::1", pod.ipv6)) if on],
        uid=uid,
        gid=gid,
    )


def check(pod: Pod, rows: list[Row]) -> None:
    """Make all the connections, and fail with those that arrived elsewhere."""
    wrong = []
    for row in rows:
        for version, there in ((4, pod.ipv4), (6, pod.ipv6)):
            if there and version in row.versions:
                arrived = arrival(row, version, pod)
                if arrived != row.arrives:
                    wrong.append(f"  IPv{version}: {row.text:42} must arrive at {row.arrives}: {arrived}")
    if wrong:
        pytest.fail("\n".join(["not every connection arrives where it should:", *wrong]), pytrace=False)

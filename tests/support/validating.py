"""validating: run the validation in a pod, and read the table that it prints."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

from ..support import everyone
from ..support.netns import ROOT, Namespace, Outcome

BACKENDS = {
    "libiptc": [],
    "iptables-nft": ["--force-iptables-binary", "nft"],
    "native": ["--native-nftables"],
}

FAMILIES = {
    "ipv4": ({"ipv6": False}, [], ["IPv4"]),
    "dual-stack": ({}, ["--dual-stack"], ["IPv4", "IPv6"]),
    "ipv6": ({"ipv4": False}, [], ["IPv4", "IPv6"]),  # IPv4 rules are always made
}

QUIET = "--log_output_level=default:warn"

#: As Istio's CNI plugin has it: the proxy's user, no capability and no way to get any, nothing to be written,
#: no lock file.
READ_ONLY = """
mount -t tmpfs none /run
for point in /run /mnt /tmp /; do mount -o remount,bind,ro "$point" 2>/dev/null || test "$point" = /tmp; done
for file in /run/xtables.lock /mnt/file /file; do
    if touch "$file" 2>/dev/null; then echo "$file can be written" >&2; exit 99; fi
done
"""

_PROXY = "setpriv --reuid=1337 --regid=1337 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs"


def restricted(pod: Namespace, *arguments: str) -> Outcome:
    """Run the tool as the proxy's user, who may do nothing."""
    command = everyone.command(_PROXY.split(), *arguments, script=READ_ONLY)
    done = pod.run(command, check=False, env=everyone.PACKAGE_ALONE)
    return Outcome(done.returncode, done.stdout, done.stderr)


def limited(pod: Namespace, capabilities: str, *arguments: str) -> Outcome:
    """Run the tool as root with some capabilities only."""
    words = ["setpriv", f"--bounding-set={capabilities}", f"--inh-caps={capabilities}"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["XTABLES_LOCKFILE"] = str(pod.directory / "xtables.lock")
    done = pod.run([*words, sys.executable, "-m", "istio_iptables", *arguments], check=False, env=environment)
    return Outcome(done.returncode, done.stdout, done.stderr)


class Line(NamedTuple):
    """A line of the table, with all that is said of it below the table: the remedy, and so on."""

    status: str
    subject: str
    text: str


#: What is probed, by the direction and the dialler in the table.
SUBJECTS = {
    ("inbound", "proxy"): "inbound",
    ("outbound", "other"): "outbound",
    ("outbound", "proxy"): "outbound of the proxy",
    ("outbound", "proxy UID"): "outbound of the proxy's UID",
    ("outbound", "proxy GID"): "outbound of the proxy's GID",
}


def lines(outcome: Outcome) -> list[Line]:
    """The report, which has the same order in the table and below it."""
    assert "Traceback" not in outcome.err
    table, *below = outcome.out.rstrip("\n").split("\n\n")
    headings, *rows = table.splitlines()
    assert headings.split() == "RESULT DIRECTION FAMILY FROM (UID:GID) TO MEANT FOR ARRIVED".split()  # noqa: SIM905
    assert max(map(len, table.splitlines())) < 100
    found: list[Line] = []
    for row in rows:
        status, direction, family, who, *_ = re.split(" {2,}", row)
        dns, _, protocol = direction.partition(", ")
        title = SUBJECTS["outbound" if dns == "DNS" else direction, re.sub(r" \d+:\d+$", "", who)]
        subject = f"DNS over {protocol}, {title}, {family}" if dns == "DNS" else f"{title}, {family}"
        about = ""
        if status != "PASS":
            about = below.pop(0)
            assert about.startswith(f"{status}  {subject}: "), about
        found.append(Line(status, subject, f"{row}\n{about}"))
    assert [line[:6] for text in below for line in text.splitlines()] == ["note: "] * len(
        notes(outcome).splitlines()
    )
    return found


def verdicts(outcome: Outcome) -> dict[str, str]:
    """The verdicts by subject: (`inbound, IPv4`, `outbound of the proxy's UID, IPv6`, ...)."""
    found = lines(outcome)
    assert len({line.subject for line in found}) == len(found)
    return {line.subject: line.status for line in found}


def said(outcome: Outcome, subject: str) -> str:
    """All that is said of a subject."""
    return next(line.text for line in lines(outcome) if line.subject == subject)


def whose(address: str) -> str:
    """A documentation address without its end, which is drawn at random; any other as it is."""
    return next((start for start in ("192.0.2.", "2001:db8::") if address.startswith(start)), address)


def notes(outcome: Outcome) -> str:
    return "\n".join(line for line in outcome.out.splitlines() if line.startswith("note: "))


OF_ROOT = ("outbound", "outbound of the proxy's UID", "outbound of the proxy's GID")


def all_pass(families: Sequence[str] = ("IPv4",)) -> dict[str, str]:
    return {f"{what}, {family}": "PASS" for family in families for what in ("inbound", *OF_ROOT)}

"""istio_fixtures: the rule sets in tests/fixtures/istio, which Istio's own tools left."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "fixtures" / "istio"
NAMES = sorted(path.stem for path in FOLDER.glob("*.txt"))

#: What any program could have written: a pair of -c, the RETURN of -k.
ANYONES = re.compile(r"^-A (PREROUTING -i|OUTPUT -o) \S+ -j RETURN$")


@dataclass(frozen=True)
class IstioRules:
    """One file: what Istio's tool left, and the settings for the same capture (README of the folder)."""

    version: str
    settings: list[str]
    environment: dict[str, str]
    nameservers: list[str]
    #: Arguments of ip(8), one list a command.
    ip: list[list[str]]
    #: By family, input of iptables-restore; by `native`, input of nft.
    scripts: dict[str, str]
    #: Whether this project's tool writes exactly these rules.
    same: bool

    def of_anyone(self, family: str) -> list[tuple[str, str]]:
        """Return the rules that any program could have written, as (table, line of iptables-save)."""
        found, table = [], ""
        for line in self.scripts.get(family, "").splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif ANYONES.match(line):
                found.append((table, line))
        return found


def read(name: str) -> IstioRules:
    """Return one rule set by the name of its file, without `.txt`."""
    return read_file(FOLDER / f"{name}.txt")


def read_file(path: Path) -> IstioRules:
    """Return one rule set of a file, which may be one of a release (releases.py)."""
    head: dict[str, list[str]] = {}
    scripts: dict[str, str] = {}
    family = ""
    for line in path.read_text().splitlines():
        comment = re.match(r"# ([\w-]+): (.*)", line)
        if comment and comment[1] == "family":
            family = comment[2]
            scripts[family] = ""
        elif comment:
            head.setdefault(comment[1], []).append(comment[2])
        else:
            scripts[family] += f"{line}\n"
    variables = {
        "groups": "ISTIO_OUTBOUND_OWNER_GROUPS",
        "groups-exclude": "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
    }
    return IstioRules(
        version=head.get("istio", head.get("release", [""]))[0],
        settings=head["settings"][0].split(),
        environment={name: head[key][0] for key, name in variables.items() if key in head},
        nameservers=head.get("resolv", [""])[0].split(),
        ip=[command.split() for command in head.get("ip", [])],
        scripts=scripts,
        same="same" in head,
    )

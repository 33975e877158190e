"""agreeing: settings and locations for the tests that compare backends."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings

from istio_iptables import Ruleset
from istio_iptables.formats.iptables_restore import parse
from istio_iptables.kernel.iptables_command import IptablesCommand
from istio_iptables.kernel.xtables.libiptc import Libiptc
from istio_iptables.rules.edit import apply_to, edit_between
from istio_iptables.rules.model import TABLES, Table

from ..support.scratch import (
    COMMANDS,
    FAMILIES,
    Family,
    Scratch,
    Variant,
)

Settings = dict[str, str]


Pod = tuple[bool, bool, list[str]]


def properties(share: float) -> Any:
    """Settings for a test that tries `share` times as many examples as the profile has (100, fuzz: 1000)."""
    return hypothesis_settings(
        max_examples=max(1, round(share * hypothesis_settings().max_examples)),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )


@dataclass
class Location:
    """A backend in a namespace of its own."""

    name: str
    backend: Libiptc | IptablesCommand
    scratch: Scratch

    @property
    def variant(self) -> Variant:
        return "legacy" if self.backend.location == "iptables-legacy" else "nft"

    def command(self, family: Family, action: str, *options: str, stdin: str = "") -> str:
        """Run one of iptables' commands in the namespace that this process is in."""
        done = subprocess.run(
            [f"{COMMANDS[family]}-{self.variant}-{action}", *options],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.args}: {done.stderr}\n{stdin}"
        return done.stdout

    def save(self, family: Family) -> str:
        text = self.command(family, "save", "-c")
        return "".join(f"{line}\n" for line in text.splitlines() if not line.startswith("#"))

    def read(self, family: Family, saved: str) -> Mapping[str, Table]:
        """Return what the backend reads; for the commands that is what they have just printed."""
        tables = self.backend.read(family) if isinstance(self.backend, Libiptc) else parse(saved, family)
        return {table.name: table for table in tables}

    def edit(self, live: Mapping[str, Table], wanted: Ruleset, family: Family) -> None:
        """Change what is there into what is wanted, table by table, as a plan does."""
        for name in TABLES:
            before = live.get(name, Table(family, name))
            edit = edit_between(before, wanted.table(family, name))
            if edit.steps:
                apply_to(before, edit)  # the model of a kernel takes it too
                self.backend.apply(edit)

    def empty(self) -> None:
        """Flush everything."""
        with self.scratch.inside():
            if self.variant == "nft":
                subprocess.run(["nft", "flush", "ruleset"], check=True)
                return
            script = "".join(f"*{table}\nCOMMIT\n" for table in (*TABLES, "filter"))
            for family in FAMILIES:
                self.command(family, "restore", stdin=script)

    def nothing_to_do(self, live: Mapping[str, Table], wanted: Ruleset, family: Family) -> bool:
        return not any(
            edit_between(live.get(name, Table(family, name)), wanted.table(family, name)).steps
            for name in TABLES
        )

"""doctor: run `istio-iptables doctor` in a namespace, and read what it says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from istio_iptables.doctor.examination import CHECKS

from .scratch import SETPRIV, Scratch

#: A line of a log, of a run that has failed.
_WHAT_TO_DO = "  what to do: "


class Report:
    """What doctor has found: the entries of its JSON by the name of the check, and its exit code."""

    def __init__(self, code: int, output: str, errors: str) -> None:
        assert code in (0, 3), (code, errors)
        document = json.loads(output)
        self.code = code
        self.checks: dict[str, Any] = {check["name"]: check for check in document["checks"]}
        assert list(self.checks) == [check.name for check in CHECKS]
        assert document["failed"] == (code == 3) == bool(self.names("FAIL"))
        assert "bug in istio-iptables" not in output, output

    def names(self, status: str) -> set[str]:
        """Return the names of the checks that have a status."""
        return {name for name, check in self.checks.items() if check["status"] == status}

    def words(self, name: str) -> str:
        """Return all that a check says but its remedy."""
        check = self.checks[name]
        return "\n".join((check["finding"], *check["details"]))

    def says(self, name: str, status: str, words: str = "") -> None:
        """Assert a check's status, and words of it; what is not OK has a remedy, if it was checked."""
        check = self.checks[name]
        assert check["status"] == status, check
        assert words in self.words(name), check
        assert status == "OK" or check["remedy"] or "could not be checked" in check["finding"], check


def doctor(
    scratch: Scratch, *arguments: str, prefix: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Report:
    """Run it, and read its JSON."""
    done = scratch.tool("doctor", "--json", *arguments, prefix=prefix, env=env)
    return Report(done.returncode, done.stdout, done.stderr)


def foretells(
    scratch: Scratch,
    name: str,
    *arguments: str,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    code: int = 1,
) -> Report:
    """Assert that a check fails, and that a run with the same settings does, with the same remedy if any."""
    report = doctor(scratch, *arguments, prefix=prefix, env=env)
    report.says(name, "FAIL")
    done = scratch.tool(*arguments, prefix=prefix, env=env)
    assert done.returncode == code, done.stderr
    remedies = [line.partition(_WHAT_TO_DO)[2] for line in done.stderr.splitlines() if _WHAT_TO_DO in line]
    if remedies:
        assert report.checks[name]["remedy"] == remedies[-1]
    return report


# --- commands under which something is missing ---------------------------------------------------


def dropped(*capabilities: str) -> list[str]:
    """Return the prefix of a command that is to be without some capabilities."""
    return [SETPRIV, f"--bounding-set={','.join(f'-{name}' for name in capabilities)}"]


def hidden(*programs: str) -> list[str]:
    """Return the prefix of a command that is not to find some programs or libraries."""
    paths = [Path(shutil.which(program) or program).resolve() for program in programs]
    mounts = " && ".join(f"mount --bind /dev/null {path}" for path in dict.fromkeys(paths))
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", f'{mounts} && exec "$@"', "sh"]


def mounted(*mounts: str) -> list[str]:
    """Return the prefix of a command in a mount namespace of its own; $$ is the PID of the command."""
    script = f'{" && ".join(mounts)} && exec "$@"'
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh"]

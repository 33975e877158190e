"""Run a sample of the mutants of each package with the unit tests, and show those that survive.

A mutant is a function with one thing changed. It is killed if a test fails, or takes too long.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Where mutmut has its copy of the tree, with all mutants in it, and what became of each.
MUTANTS = ROOT / "mutants"
PACKAGES = ("policy", "rules", "change", "formats", "settings", "interpreter")
#: What mutmut notes: 0 for tests that pass, 33 if none comes to the function, None if it was not run.
_SURVIVED = (0, 5, 33)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument(
        "packages", nargs="*", metavar="PACKAGE", help=f"which: {', '.join(PACKAGES)}; all without"
    )
    parser.add_argument("--sample", type=int, default=60, help="of each package (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="side by side (default: %(default)s)")
    chosen = parser.parse_args()
    packages = chosen.packages or PACKAGES
    unknown = set(packages) - set(PACKAGES)
    if unknown:
        parser.error(f"no such package: {', '.join(sorted(unknown))}")
    _make(chosen.processes)
    samples = {package: _sample(package, chosen.sample, chosen.seed) for package in packages}
    _mutmut(
        "run",
        "--max-children",
        str(chosen.processes),
        *(name for names in samples.values() for name in names),
    )
    return _report(samples)


def _make(processes: int) -> None:
    """Make all mutants, by running one of them, and note which tests come to which function."""
    _mutmut("run", "--max-children", str(processes), "istio_iptables.rules.lists.x_union__mutmut_1")


def _mutmut(*arguments: str, output: bool = False) -> str:
    command = [sys.executable, "-m", "mutmut", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, errors="replace", check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout[-10000:]}\nmutmut {arguments[0]} failed")
    return done.stdout


def _results(package: str) -> Mapping[str, int | None]:
    """Return the mutants of a package by their names: the exit code of the tests."""
    found: dict[str, int | None] = {}
    for path in sorted(MUTANTS.glob(f"istio_iptables/{package}/**/*.meta")):
        found |= json.loads(path.read_text())["exit_code_by_key"]
    return found


def _sample(package: str, number: int, seed: int) -> list[str]:
    names = sorted(_results(package))
    return sorted(random.Random(seed).sample(names, min(number, len(names))))


def _report(samples: Mapping[str, Iterable[str]]) -> int:
    """Show the survivors, and a line for each package; the exit code is 1 if fewer than 95 % were killed."""
    enough = True
    lines = []
    for package, names in samples.items():
        results = _results(package)
        survivors = [name for name in names if results[name] in _SURVIVED]
        for name in survivors:
            print(_mutmut("show", name))
        tried = len(list(names))
        lines.append(f"{package}: {tried - len(survivors)} of {tried} killed ({len(results)} mutants in all)")
        enough &= len(survivors) <= tried * 0.05
    print(*lines, sep="\n")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())

"""Run a sample of the mutants of each package with the unit tests, and show those that survive.

A mutant is a function with one thing changed. It is killed if a test fails, or takes too long.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Where mutmut has its copy of the tree, with all mutants in it, and what became of each.
MUTANTS = ROOT / "mutants"
PACKAGES = ("policy", "rules", "change", "formats", "settings", "interpreter")
#: What mutmut notes: 0 for tests that pass, 33 if none comes to the function, None if it was not run.
_SURVIVED = (0, 5, 33)
#: The part that has to be killed.
_ENOUGH = 0.95


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


def _mutmut(*arguments: str) -> str:
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


def _survives(name: str) -> bool:
    """Run a mutant in a process of its own: mutmut's have imported the modules before they change anything.

    So what runs while a module is imported is right there, whatever the mutant.
    """
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    options = [*config["pytest_add_cli_args"], *config["pytest_add_cli_args_test_selection"]]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "--rootdir=.", *options],
        cwd=MUTANTS,
        env={**os.environ, "MUTANT_UNDER_TEST": name, "PYTHONPATH": str(MUTANTS)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode == 0


def _report(samples: Mapping[str, Sequence[str]]) -> int:
    """Show the survivors, and a line for each package; the exit code is 1 if fewer than 95 % were killed."""
    enough = True
    lines = []
    for package, names in samples.items():
        results = _results(package)
        survivors = [name for name in names if results[name] in _SURVIVED and _survives(name)]
        for name in survivors:
            print(_mutmut("show", name))
        killed = len(names) - len(survivors)
        lines.append(f"{package}: {killed} of {len(names)} killed (of {len(results)} mutants)")
        enough &= killed >= len(names) * _ENOUGH
    print(*lines, sep="\n")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())

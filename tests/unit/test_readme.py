"""The README: its Python runs, its commands are understood, and its map has every package."""

import doctest
import re
import shlex
import tomllib
from pathlib import Path

import istio_iptables
from istio_iptables.settings.go_flags import read_arguments
from tests.support.cases import all_cases

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(
    {
        line.split("#")[0].split("|")[0].strip()
        for line in re.findall(r"^    (istio-iptables .*)$", README, re.MULTILINE)
    }
    | {f"istio-iptables {match}" for match in re.findall(r'make run ARGS="(.*?)"', README)}
)


def test_the_python_in_the_readme_does_what_it_says():
    results = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert results.attempted >= 5
    assert results.failed == 0


def test_there_are_commands_to_check():
    assert len(COMMANDS) >= 8


@all_cases("command", COMMANDS)
def test_every_command_in_the_readme_is_understood(command):
    assert read_arguments(shlex.split(command)[1:]).mistakes == ()


#: The packages and modules of the map, in its order.
MAP = [name.strip("/") for name in re.findall(r"^\| `([\w./]+)` \| .*\|$", README, re.MULTILINE)]


def test_the_map_has_every_package():
    package = Path(istio_iptables.__file__).parent
    there = {
        path.name for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert set(MAP) == there - {"__init__.py"}


def test_the_map_is_in_the_order_that_lint_holds():
    """A package imports only packages below it, as the README says."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    floor = {name.strip("() "): number for number, layer in enumerate(layers) for name in layer.split("|")}
    floors = [floor[name.removesuffix(".py")] for name in MAP]
    assert floors == sorted(floors)

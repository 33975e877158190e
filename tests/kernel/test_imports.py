"""What a run imports when it meets the kernel: loading costs more than all that is done with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.imports import expensive

from ..support.scratch import FAMILIES, KERNEL, Family, Scratch

pytestmark = KERNEL

#: What only a run that fails, or one that looks for the reason, needs.
LOOKING_FOR_CAUSES = ("istio_iptables.doctor", "istio_iptables.remedies")

RUN = """
import sys
before = set(sys.modules)
from istio_iptables.__main__ import main
status = main()
print(*sorted(set(sys.modules) - before), file=sys.__stdout__)
sys.exit(status)
"""

LOAD = """
import sys
before = set(sys.modules)
from istio_iptables.kernel.xtables.iptc_loader import load
load(sys.argv[1])
print(*sorted(set(sys.modules) - before))
"""


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    with Scratch(addresses=True) as made:
        yield made


def imported(scratch: Scratch, code: str, *arguments: str) -> set[str]:
    done = scratch.python(code, *arguments)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("\n")[-2].split())


@pytest.mark.parametrize("arguments", [[], ["--dual-stack", "-m", "TPROXY"]], ids=["simple", "dual stack"])
def test_no_run_imports_what_is_expensive(scratch: Scratch, arguments: list[str]) -> None:
    """Not even the one that writes: the library is loaded by another process."""
    for more in ([], [], ["--reconcile", "-o", "123"], ["-o", "123", "diff"], ["cleanup"], ["cleanup"]):
        modules = imported(scratch, RUN, *arguments, *more)
        assert "istio_iptables.kernel.xtables.libiptc" in modules
        assert expensive(modules) == set()
        assert not any("prob" in module or "validation" in module for module in modules)
        assert not any(module.startswith(LOOKING_FOR_CAUSES) for module in modules)


@pytest.mark.parametrize("family", FAMILIES)
def test_of_the_library_what_writes_is_loaded(scratch: Scratch, family: Family) -> None:
    modules = imported(scratch, LOAD, family)
    of_the_library = {name for name in modules if name.startswith("iptc.")}
    own = {"iptc.ip6tc"} if family == "ipv6" else set()
    assert of_the_library == {"iptc.errors", "iptc.ip4tc", "iptc.util", "iptc.version", "iptc.xtables"} | own
    assert expensive(modules) == {"iptc"}

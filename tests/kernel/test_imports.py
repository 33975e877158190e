"""What a run imports when it meets the kernel: loading costs more than all that is done with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.imports import expensive

from ..support.scratch import KERNEL, Scratch

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
    """Not even the one that writes."""
    for more in ([], [], ["--reconcile", "-o", "123"], ["-o", "123", "diff"], ["cleanup"], ["cleanup"]):
        modules = imported(scratch, RUN, *arguments, *more)
        assert "istio_iptables.kernel.xtables.libiptc" in modules
        assert expensive(modules) == set()
        assert not any("prob" in module or "validation" in module for module in modules)
        assert not any(module.startswith(LOOKING_FOR_CAUSES) for module in modules)

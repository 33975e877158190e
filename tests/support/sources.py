"""sources: the package's own source, parsed once for all tests that look at it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import istio_iptables

PACKAGE = Path(istio_iptables.__file__).parent


@cache
def modules() -> Mapping[str, ast.Module]:
    """Return the modules of the package in the order of their paths, which are relative to it.

    It takes a second, so tests that need it are in one group, `sources`: one process runs them all.
    """
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
        for path in sorted(PACKAGE.rglob("*.py"))
    }

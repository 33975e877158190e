"""axe: the accessibility checks of axe-core, fetched by npm and checked by its hash in package-lock.json."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Page

HERE = Path(__file__).parent
_LOCK = HERE / "package-lock.json"


@functools.cache
def source() -> str:
    """Return the program. Skips the test if it cannot be had."""
    kept = Path(sys.prefix) / "axe" / _version() / "axe.min.js"
    if not kept.exists():
        _fetch(kept)
    return kept.read_text(encoding="utf-8")


def _version() -> str:
    version: str = json.loads(_LOCK.read_text())["packages"]["node_modules/axe-core"]["version"]
    return version


def _fetch(kept: Path) -> None:
    npm = shutil.which("npm")
    if not npm:
        pytest.skip("axe-core is not here, and no npm to fetch it")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180)
        if done.returncode:
            pytest.skip(f"npm cannot fetch axe-core: {done.stderr.strip().splitlines()[:1]}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(folder) / "node_modules/axe-core/axe.min.js", kept)


def violations(page: Page) -> list[str]:
    """Return what axe finds wrong with a page as it is shown now."""
    page.value(f"{source()}; 0")
    found: list[dict[str, Any]] = page.value("axe.run(document).then((result) => result.violations)")
    return [f"{each['id']}: {[node['target'] for node in each['nodes']][:3]}" for each in found]

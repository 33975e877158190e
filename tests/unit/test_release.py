"""A release: its number, its dumps (tests/fixtures/releases), and what the files of CI promise about it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = importlib.util.spec_from_file_location("release_tool", ROOT / "tools/release.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with a release 1.2.3, and what came after it."""
    (tmp_path / "istio_iptables").mkdir()
    (tmp_path / "istio_iptables/__init__.py").write_text('a = 1\n__version__ = "1.2.3"  # a build\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- new\n\n## 1.2.3, 2026-01-01\n")
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    for words in (("init", "-q"), ("commit", "-q", "--allow-empty", "-m", "all"), ("tag", "v1.2.3")):
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True)
    return tmp_path


def files(root: Path) -> list[str]:
    return [(root / name).read_text() for name in ("CHANGELOG.md", "istio_iptables/__init__.py")]


def test_a_release_gives_its_number_to_the_changes_and_the_package(tool: ModuleType, clone: Path) -> None:
    tool.prepare("1.3.0", clone, "2026-12-01")
    assert files(clone) == [
        "# Changelog\n\n## 1.3.0, 2026-12-01\n\n- new\n\n## 1.2.3, 2026-01-01\n",
        'a = 1\n__version__ = "1.3.0"  # a build\n',
    ]


@pytest.mark.parametrize(
    ("number", "why"),
    [
        ("", "give a number such as 1.2.3"),
        ("v1.3.0", "give a number such as 1.2.3"),
        ("1.3", "give a number such as 1.2.3"),
        ("1.2.3", "there is v1.2.3: give a higher number"),
        ("1.1.10", "there is v1.2.3: give a higher number"),
    ],
)
def test_what_is_no_new_number_is_refused_and_nothing_is_changed(
    tool: ModuleType, clone: Path, number: str, why: str
) -> None:
    before = files(clone)
    with pytest.raises(tool.Refused, match=re.escape(why)):
        tool.prepare(number, clone, "2026-12-01")
    assert files(clone) == before


def test_without_changes_there_is_no_release(tool: ModuleType, clone: Path) -> None:
    tool.prepare("1.3.0", clone, "2026-12-01")
    before = files(clone)
    with pytest.raises(tool.Refused, match='no section "Unreleased"'):
        tool.prepare("1.4.0", clone, "2026-12-02")
    assert files(clone) == before


def test_every_release_has_dumps() -> None:
    numbers = re.findall(r"^## (\d\S*?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    folders = {path.name for path in (ROOT / "tests/fixtures/releases").iterdir() if path.is_dir()}
    assert {"0.1.0", *numbers} <= folders

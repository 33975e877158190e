"""tools/image.py where images cannot be built: it says why in one line, and whether that is a failure."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(**variables: str) -> tuple[int, str]:
    environment = {"PATH": os.defpath, "CONTAINERS_CONF": os.devnull, **variables}
    command = [sys.executable, str(ROOT / "tools/image.py"), "build"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr + done.stdout


@pytest.fixture
def engine(tmp_path: Path) -> str:
    """An engine that works, with an empty store, and no registry that it could reach."""
    script = tmp_path / "engine"
    script.write_text('#!/bin/sh\n[ "$1" = info ] || { echo "no route to host: $*" >&2; exit 1; }\n')
    script.chmod(0o755)
    return str(script)


def test_without_an_engine_it_is_skipped() -> None:
    code, said = build(ENGINE="/no/such/engine")
    assert (code, said.splitlines()) == (0, ["image build: skipped: /no/such/engine does not work here"])
    code, said = build(ENGINE="/no/such/engine", REQUIRED="1")
    assert code == 1
    assert "/no/such/engine does not work here" in said
    assert "skipped" not in said


def test_without_a_base_it_is_skipped(engine: str) -> None:
    code, said = build(ENGINE=engine)
    (line,) = said.splitlines()
    assert code == 0
    assert "skipped: the base image docker.io/library/python:3" in line
    assert "BASE_FROM=debootstrap" in line
    assert "no route to host" in line
    code, said = build(ENGINE=engine, BASE="example.org/mine", REQUIRED="1")
    assert code == 1
    assert "example.org/mine" in said


def test_a_base_of_an_unknown_kind(engine: str) -> None:
    code, said = build(ENGINE=engine, BASE_FROM="thin air")
    assert code == 1
    assert "BASE_FROM=thin air" in said


def test_what_the_image_is_built_from_makes_the_programs(tmp_path: Path) -> None:
    """The files that the stage `build` copies, as far as .dockerignore lets the engine see them."""
    stage = (ROOT / "Dockerfile").read_text().partition(" AS build\n")[2].partition("\nFROM ")[0]
    seen = set((ROOT / ".dockerignore").read_text().split())
    for line in re.findall(r"^COPY (?!--)(.*)$", stage, re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            assert {f"!{source}", f"!{source.partition('/')[0]}"} & seen, source
            goal = tmp_path / target / (Path(source).name if target.endswith("/") else "")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, goal)
            else:
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, goal)
    command = [sys.executable, "setup.py", "--quiet", "build_scripts", "--build-dir=made"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "made").iterdir()} == {
        "istio-iptables",
        "istio-clean-iptables",
        "istio-iptables-cni",
    }

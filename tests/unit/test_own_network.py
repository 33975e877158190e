"""What tells that this is the machine's own network: links and files in a directory made for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from istio_iptables.kernel.own_network import is_machines_own

#: The PID namespace that Linux starts with (PROC_PID_INIT_INO, linux/proc_ns.h).
FIRST = "pid:[4026531836]"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine, seen by root outside of containers."""
    for process in ("self", "1"):
        directory = tmp_path / "proc" / process / "ns"
        directory.mkdir(parents=True)
        for kind, target in (("pid", FIRST), ("net", "net:[4026531840]"), ("mnt", "mnt:[4026531841]")):
            (directory / kind).symlink_to(target)
    (tmp_path / "run").mkdir()
    return tmp_path


def test_the_machines_own(root: Path):
    assert is_machines_own({"PATH": "/bin", "container": ""}, str(root))


@pytest.mark.parametrize("kind", ["pid", "net", "mnt"])
def test_another_namespace(root: Path, kind: str):
    link = root / "proc/self/ns" / kind
    link.unlink()
    link.symlink_to(f"{kind}:[4026532000]")
    assert not is_machines_own({}, str(root))


@pytest.mark.parametrize("path", ["proc/self/ns/pid", "proc/1/ns/net", "proc/1/ns/mnt"])
def test_what_cannot_be_read_is_not_known(root: Path, path: str):
    (root / path).unlink()
    assert not is_machines_own({}, str(root))


@pytest.mark.parametrize("file", [".dockerenv", "run/.containerenv", "run/systemd/container"])
def test_files_of_containers(root: Path, file: str):
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).touch()
    assert not is_machines_own({}, str(root))


@pytest.mark.parametrize("variable", ["KUBERNETES_SERVICE_HOST", "container"])
def test_variables_of_containers(root: Path, variable: str):
    assert not is_machines_own({variable: "x"}, str(root))

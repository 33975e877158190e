"""The list of a network is whole at every moment, whoever is killed while it is written."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from istio_iptables.cni.node.folder import Folder
from istio_iptables.cni.node.placement import problems, put
from istio_iptables.cni.node.removal import uninstall
from tests.support.cni_kills import (
    in_background,
    kill_again_and_again,
    put_for_ever,
    rewrite,
    text_of,
    watch,
)
from tests.support.cni_lists import ENTRY, OURS

if TYPE_CHECKING:
    from istio_iptables.settings.node_commands import Placement

#: 500 in `make soak`, 50 in `make test`.
KILLS = max(1, settings().max_examples // 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mode", "part"),
    [
        ("10-net.conflist", "chained", 1),
        ("10-net.conf", "chained", 2),
        ("10-net.conflist", "dropin", 5),
        ("10-net.conflist", "own-file", 5),
        ("10-net.conf", "own-file", 5),
    ],
)
def test_kills_beside_a_program_that_rewrites_the_list(tmp_path: Path, name: str, mode: Placement, part: int):
    """Never damaged, empty, twice or absent; and in the end ours is in, and out again."""
    (conf := tmp_path / "conf").mkdir()
    path, report = conf / name, tmp_path / "seen"
    path.write_text(text_of(name, 0))
    with in_background(watch(conf, report)), in_background(rewrite(path, KILLS)):
        kill_again_and_again(conf, mode, max(1, KILLS // part), KILLS)
    assert not report.exists(), report.read_text()
    folder = Folder(str(conf))
    put(folder, mode, ENTRY)
    assert problems(folder, mode, ENTRY) == []
    assert [found for found in conf.rglob("*") if found.suffix == ".tmp"] == []
    last = path.read_text() if path.exists() else (conf / f".{name}.istio-iptables").read_text()
    uninstall(folder)
    assert OURS not in "".join(found.read_text() for found in conf.rglob("*") if found.is_file())
    assert path.read_text() == (last if OURS not in last else path.read_text())
    assert {found.name for found in conf.iterdir()} <= {name, "theirs.new"}


@pytest.mark.slow
def test_what_the_other_program_wrote_last_is_what_stays(tmp_path: Path):
    """Not what was read before: a list that came between reading and writing is not lost."""
    (conf := tmp_path / "conf").mkdir()
    path = conf / "10-net.conflist"
    path.write_text(text_of(path.name, 0))
    written = 0
    with in_background(lambda: put_for_ever(conf)):
        for number in range(1, KILLS * 10 + 1):
            document = json.loads(text_of("10-net.conflist", 0))
            document["number"] = document["plugins"][0]["number"] = number
            (new := conf / "theirs.new").write_text(json.dumps(document))
            new.rename(path)
            if number % 10 == 0:
                time.sleep(0.02)
                seen = json.loads(path.read_text())
                assert seen["number"] == number
                written += 1
    assert written

"""The list of a network is whole at every moment, whoever is killed while it is written."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import settings

from istio_iptables.cni.node.folder import Folder
from istio_iptables.cni.node.placement import put
from istio_iptables.cni.node.removal import uninstall
from tests.support.cni_kills import in_background, kill_again_and_again, put_for_ever, rewrite, watch
from tests.support.cni_lists import ENTRY, OURS

#: 500 in `make soak`, 50 in `make test`.
KILLS = max(1, settings().max_examples // 2)
LIST = json.dumps(
    {
        "cniVersion": "1.0.0",
        "name": "net",
        "number": 0,
        "plugins": [{"type": "bridge", "number": 0}, {"type": "portmap"}],
    }
)


@pytest.mark.slow
def test_kills_beside_a_program_that_rewrites_the_list(tmp_path: Path):
    (conf := tmp_path / "conf").mkdir()
    path, report = conf / "10-net.conflist", tmp_path / "seen"
    path.write_text(LIST)
    with in_background(watch(path, report)), in_background(rewrite(path, KILLS)):
        kill_again_and_again(conf, KILLS, KILLS)
    assert not report.exists(), report.read_text()
    put(Folder(str(conf)), "chained", ENTRY)
    assert [plugin["type"] for plugin in json.loads(path.read_text())["plugins"]] == [
        "bridge",
        "portmap",
        OURS,
    ]
    assert {file.name for file in conf.iterdir()} <= {path.name, "theirs.new"}
    uninstall(Folder(str(conf)))
    assert OURS not in path.read_text()


@pytest.mark.slow
def test_what_the_other_program_wrote_last_is_what_stays(tmp_path: Path):
    """Not what was read before: a list that came between reading and writing is not lost."""
    (conf := tmp_path / "conf").mkdir()
    path = conf / "10-net.conflist"
    path.write_text(LIST)
    written = 0
    with in_background(lambda: put_for_ever(conf)):
        for number in range(1, KILLS * 10 + 1):
            document = json.loads(LIST)
            document["number"] = document["plugins"][0]["number"] = number
            (new := conf / "theirs.new").write_text(json.dumps(document))
            new.rename(path)
            if number % 10 == 0:
                time.sleep(0.02)
                seen = json.loads(path.read_text())
                assert seen["number"] == number
                written += 1
    assert written

"""The process that keeps the plugin on a node; tests/kernel/test_cni_node.py has it as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from istio_iptables.cni.node import agent, tree
from tests.support.cni import Recorder
from tests.support.cni_lists import ENTRY, OURS
from tests.support.cni_node import LIST, make_node


def test_an_entry_that_was_overwritten_is_put_back_without_making_the_files_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """That takes a second, in which pods would start without their rules."""
    node = make_node(tmp_path / "node")
    path = node / "conf/10-net.conflist"
    made: list[str] = []

    def install(bin_dir: str, _: str) -> list[str]:
        made.append(bin_dir)
        return []

    monkeypatch.setattr(tree, "install", install)
    monkeypatch.setattr(tree, "installed", lambda _: "there")
    state, looks = agent.State(), 0

    def ended() -> bool:
        nonlocal looks
        assert looks == 0 or OURS in path.read_text()
        looks += 1
        path.write_text(LIST)
        return looks == 5

    agent.keep(agent.Node(str(path.parent), str(node / "bin"), "chained", ENTRY), state, Recorder(), ended)
    assert len(made) == 1
    assert (state.problem, state.put_back) == ("", 4)

"""The plugin in a folder of configurations as nodes have them, in each way, and out of it again."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from istio_iptables.cni.node import files
from istio_iptables.cni.node.folder import Folder
from istio_iptables.cni.node.placement import primary, problems, put
from istio_iptables.cni.node.removal import DROP_IN, OWN_FILES, uninstall
from istio_iptables.errors import KernelError
from istio_iptables.settings.node_commands import PLACEMENTS
from tests.support.cni_lists import ENTRY, INVALID, OURS, lists, singles

if TYPE_CHECKING:
    from istio_iptables.settings.node_commands import Placement

LIST = '{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}, {"type": "portmap"}]}\n'
SINGLE = '{"cniVersion": "0.3.1", "name": "net", "type": "bridge"}\n'

#: Long ago, so that no file counts as being written at the moment.
LONG_AGO = (1_000_000_000, 1_000_000_000)

Contents = dict[str, tuple[bytes, int, str]]


def fill(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        (folder / name).write_bytes(files.encoded(text))
        os.utime(folder / name, LONG_AGO)


def contents(folder: Path) -> Contents:
    """Everything in a folder: bytes, modes, and where links lead."""
    found: Contents = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            continue
        link = os.readlink(path) if path.is_symlink() else ""
        found[str(path.relative_to(folder))] = (path.read_bytes(), stat.S_IMODE(path.stat().st_mode), link)
    return found


def in_use(folder: Path) -> list[str]:
    """The types of the chain that a runtime with libcni 1.3 calls, read independently of the product."""
    for path in sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name)):
        if path.suffix not in (".conf", ".conflist"):
            continue
        try:
            document = json.loads(path.read_bytes().decode("utf-8", "replace"), parse_constant=no_json)
        except (ValueError, FileNotFoundError):
            continue
        if not isinstance(document, dict):
            continue
        if path.suffix == ".conf":
            if document.get("type"):
                return [document["type"]]
            continue
        chain = document.get("plugins")
        if isinstance(document.get("name"), str) and isinstance(chain, list) and chain and chain[0]["type"]:
            more = sorted((folder / document["name"]).glob("*.conf"))
            return [p.get("type", "") for p in chain] + [json.loads(p.read_text())["type"] for p in more]
    return []


def no_json(word: str) -> None:
    raise ValueError(word)


@st.composite
def folders(draw: st.DrawFn, *, with_ours: bool | None = None) -> dict[str, str]:
    """Some files: valid and invalid ones, the first valid one a list or a single plugin."""
    stems = draw(
        st.lists(
            st.sampled_from(["00-a", "05", "10-calico", "10.net", "87-podman-bridge", "99", "a", "Z"]),
            unique=True,
            min_size=1,
            max_size=4,
        )
    )
    found: dict[str, str] = {}
    for stem in stems:
        kind = draw(st.sampled_from(["list", "single", "invalid", "other"]))
        if kind == "list":
            found[f"{stem}.conflist"] = draw(lists(with_ours=with_ours))
        elif kind == "single":
            found[f"{stem}.conf"] = draw(singles())
        elif kind == "invalid":
            found[f"{stem}.{draw(st.sampled_from(['conf', 'conflist']))}"] = draw(INVALID)
        else:
            found[f"{stem}{draw(st.sampled_from(['.json', '.conf.bak', '', '.txt']))}"] = "whatever"
    return found


@settings(max_examples=max(1, settings().max_examples // 2))
@given(folders(with_ours=False), st.sampled_from(PLACEMENTS), st.sampled_from([0o600, 0o640, 0o644, 0o4755]))
def test_in_and_out_again(texts: dict[str, str], mode: Placement, permissions: int):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        fill(path, texts)
        for name in texts:
            (path / name).chmod(permissions)
        before, chain = contents(path), in_use(path)
        folder = Folder(directory)
        try:
            done = put(folder, mode, ENTRY)
        except KernelError:
            assert contents(path) == before  # nothing is changed before all is known
            return
        assert done
        assert in_use(path) == [*chain, OURS]
        assert problems(folder, mode, ENTRY) == []
        after = contents(path)
        assert put(folder, mode, ENTRY) == []
        assert contents(path) == after
        new = {name: after[name] for name in after if after[name] != before.get(name)}
        assert all(mode_of == permissions for _, mode_of, _ in new.values())
        assert uninstall(folder)
        assert contents(path) == before


@settings(max_examples=max(1, settings().max_examples // 2))
@given(folders(), st.sampled_from(PLACEMENTS), st.sampled_from(PLACEMENTS))
def test_whatever_was_there_it_is_in_use_once(texts: dict[str, str], first: Placement, then: Placement):
    """Entries of ours that were there already, and those of another mode, are gone afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        fill(path, texts)
        folder = Folder(directory)
        for mode in (first, then):
            chain = [kind for kind in in_use(path) if kind != OURS]
            try:
                put(folder, mode, ENTRY)
            except KernelError:
                continue
            assert in_use(path) == [*chain, OURS]
            assert problems(folder, mode, ENTRY) == []
        uninstall(folder)
        assert OURS not in in_use(path) or set(in_use(path)) == {OURS}


# --- modes, one at a time ---------------------------------------------------------------------------


def test_the_first_valid_one_in_order_of_names(tmp_path: Path):
    fill(tmp_path, {"20.conflist": LIST, "10.conf": "{", "15.conflist": LIST, "05.json": SINGLE})
    assert primary(Folder(str(tmp_path))).name == "15.conflist"


def test_no_network_yet_says_what_was_passed_over(tmp_path: Path):
    fill(tmp_path, {"10.conf": "{"})
    with pytest.raises(KernelError, match=r"has no valid network configuration \(10.conf: .* line 1"):
        put(Folder(str(tmp_path)), "chained", ENTRY)


@pytest.mark.parametrize("version", ["", "0.1.0", "0.3.0", "2.0.0"])
def test_a_chain_in_which_the_plugin_would_fail_is_left_alone(tmp_path: Path, version: str):
    fill(tmp_path, {"10.conflist": LIST.replace("1.0.0", version)})
    before = contents(tmp_path)
    with pytest.raises(KernelError, match="its cniVersion is"):
        put(Folder(str(tmp_path)), "chained", ENTRY)
    assert contents(tmp_path) == before


def test_a_list_of_nothing_but_ours_is_left_alone(tmp_path: Path):
    fill(
        tmp_path,
        {"10.conflist": f'{{"cniVersion": "1.0.0", "name": "n", "plugins": [{{"type": "{OURS}"}}]}}'},
    )
    with pytest.raises(KernelError, match="no plugin but"):
        put(Folder(str(tmp_path)), "chained", ENTRY)
    (line,) = uninstall(Folder(str(tmp_path)))
    assert "the only plugin in it" in line


def test_a_single_plugin_whose_list_exists_is_refused(tmp_path: Path):
    fill(tmp_path, {"10.conf": SINGLE, "10.conflist": LIST})
    before = contents(tmp_path)
    with pytest.raises(KernelError, match="another file of that name"):
        put(Folder(str(tmp_path)), "chained", ENTRY)
    assert contents(tmp_path) == before
    assert put(Folder(str(tmp_path)), "own-file", ENTRY)


def test_a_single_plugin_that_its_installer_writes_again_becomes_a_list_again(tmp_path: Path):
    folder = Folder(str(tmp_path))
    fill(tmp_path, {"10.conf": SINGLE})
    put(folder, "chained", ENTRY)
    newer = SINGLE.replace("bridge", "ptp")
    fill(tmp_path, {"10.conf": newer})
    assert problems(folder, "chained", ENTRY)
    put(folder, "chained", ENTRY)
    assert in_use(tmp_path) == ["ptp", OURS]
    uninstall(folder)
    assert {name: text for name, (text, _, _) in contents(tmp_path).items()} == {"10.conf": newer.encode()}


def test_a_made_list_that_others_have_changed_stays_a_list(tmp_path: Path):
    folder = Folder(str(tmp_path))
    fill(tmp_path, {"10.conf": SINGLE})
    put(folder, "chained", ENTRY)
    document = json.loads((tmp_path / "10.conflist").read_text())
    document["plugins"].append({"type": "portmap"})
    fill(tmp_path, {"10.conflist": json.dumps(document)})
    assert problems(folder, "chained", ENTRY) == []  # it need not be the last one
    uninstall(folder)
    assert in_use(tmp_path) == ["bridge", "portmap"]
    assert list(contents(tmp_path)) == ["10.conflist"]


@pytest.mark.parametrize("name", ["10.conflist", "10.conf"])
def test_a_link_stays_a_link(tmp_path: Path, name: str):
    (real := tmp_path / "real").mkdir()
    (conf := tmp_path / "conf").mkdir()
    fill(real, {name: LIST if name.endswith("list") else SINGLE})
    (conf / name).symlink_to(f"../real/{name}")
    (conf / "00.conf").symlink_to("nowhere")
    folder = Folder(str(conf))
    put(folder, "chained", ENTRY)
    assert in_use(conf)[-1] == OURS
    if name.endswith("list"):
        assert (conf / name).is_symlink()
    uninstall(folder)
    assert (conf / name).is_symlink()
    assert {path.name for path in conf.iterdir()} == {name, "00.conf"}
    assert {path.name for path in real.iterdir()} == {name}


def test_drop_in(tmp_path: Path):
    folder = Folder(str(tmp_path))
    fill(tmp_path, {"10.conflist": LIST})
    put(folder, "dropin", ENTRY)
    assert json.loads((tmp_path / "net" / DROP_IN).read_text()) == ENTRY
    assert (tmp_path / "10.conflist").read_text() == LIST
    fill(tmp_path, {"10.conflist": LIST.replace('"net"', '"other"')})
    assert len(problems(folder, "dropin", ENTRY)) == 2  # not in one, and in the other
    put(folder, "dropin", ENTRY)
    assert sorted(contents(tmp_path)) == ["10.conflist", f"other/{DROP_IN}"]
    (tmp_path / "other" / "50-theirs.conf").write_text('{"type": "theirs"}')
    uninstall(folder)
    assert sorted(contents(tmp_path)) == ["10.conflist", "other/50-theirs.conf"]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("10.conf", SINGLE, "only lists have drop-ins"),
        (
            "10.conflist",
            LIST.replace('"name"', '"loadOnlyInlinedPlugins": true, "name"'),
            "loadOnlyInlinedPlugins",
        ),
        (
            "10.conflist",
            LIST.replace('"name"', '"loadOnlyInlinedPlugins": "true", "name"'),
            "loadOnlyInlined",
        ),
        ("10.conflist", LIST.replace('"net"', '"../net"'), "cannot be that of a folder"),
        ("10.conflist", LIST.replace('"net"', '""'), "cannot be that of a folder"),
    ],
)
def test_drop_ins_that_no_runtime_would_read_are_refused(tmp_path: Path, name: str, text: str, why: str):
    fill(tmp_path, {name: text})
    before = contents(tmp_path)
    with pytest.raises(KernelError, match=why):
        put(Folder(str(tmp_path)), "dropin", ENTRY)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("first", "own"), [("10.conflist", OWN_FILES[0]), ("00-a.conflist", OWN_FILES[1])])
def test_an_own_file_comes_first_and_follows_the_original(tmp_path: Path, first: str, own: str):
    folder = Folder(str(tmp_path))
    fill(tmp_path, {first: LIST})
    put(folder, "own-file", ENTRY)
    assert (tmp_path / first).read_text() == LIST
    assert in_use(tmp_path) == ["bridge", "portmap", OURS]
    fill(tmp_path, {first: LIST.replace("portmap", "bandwidth")})
    assert problems(folder, "own-file", ENTRY)
    put(folder, "own-file", ENTRY)
    assert in_use(tmp_path) == ["bridge", "bandwidth", OURS]
    assert sorted(contents(tmp_path)) == sorted([first, own])


def test_an_own_file_that_cannot_come_first_is_refused(tmp_path: Path):
    fill(tmp_path, {"!.conflist": LIST})
    with pytest.raises(KernelError, match="no own file can come before"):
        put(Folder(str(tmp_path)), "own-file", ENTRY)


def test_what_killed_runs_left_is_removed(tmp_path: Path):
    (tmp_path / "net").mkdir()
    fill(
        tmp_path, {"10.conflist": LIST, ".istio-iptables-0123.tmp": "{", "net/.istio-iptables-0123.tmp": "{"}
    )
    put(Folder(str(tmp_path)), "chained", ENTRY)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["10.conflist", "net"]

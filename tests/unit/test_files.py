"""Files that root opens: what is no file is called what it is, and a link of another user is not followed."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from istio_iptables.kernel.files import open_file, read

LIMIT = 4096
WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to another user")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def text(path: Path | str) -> str:
    return read(str(path), LIMIT).decode()


def refused(path: Path | str, why: str, flags: int = os.O_RDONLY) -> None:
    before = descriptors()
    with pytest.raises(OSError, match=re.escape(why)):
        os.close(open_file(str(path), flags))
    assert descriptors() == before


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    before = descriptors()
    assert text(tmp_path / "file") == "content"
    assert text(f"{tmp_path}//./../{tmp_path.name}/file") == "content"
    assert descriptors() == before


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("content")
    monkeypatch.chdir(tmp_path)
    assert text("file") == text("./file") == text("../" + tmp_path.name + "/file") == "content"


def test_a_file_is_made_and_emptied(tmp_path: Path) -> None:
    for content in (b"one", b"2"):
        file = open_file(str(tmp_path / "file"), WRITE, 0o600)
        os.write(file, content)
        os.close(file)
        assert (tmp_path / "file").read_bytes() == content
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDONLY | os.O_CREAT, WRITE])
def test_what_is_no_file_is_called_what_it_is(tmp_path: Path, flags: int) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name, why in (("fifo", "a FIFO"), ("folder", "a directory"), ("socket", "a socket")):
            refused(tmp_path / name, f"it is {why}", flags)
    refused("/", "it is a directory", flags)
    refused(tmp_path, "it is a directory", flags)


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(tmp_path / "absent", "No such file or directory")
    refused(tmp_path / "absent" / "file", "No such file or directory", WRITE)
    refused(tmp_path / "file" / "below", "Not a directory")
    refused("", "No such file or directory")


def test_a_device_may_be_written_to_but_has_no_end() -> None:
    os.close(open_file("/dev/null", WRITE))
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(OSError, match="it is a device"):
            text(device)


def test_a_file_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(LIMIT))
    assert len(text(tmp_path / "file")) == LIMIT
    (tmp_path / "file").write_bytes(bytes(LIMIT + 1))
    with pytest.raises(OSError, match="it is larger than 4 KiB"):
        text(tmp_path / "file")


# --- symbolic links ---------------------------------------------------------------------------


def test_links_of_root_and_of_this_user_are_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("content")
    for name, target in (
        ("relative", "folder/file"),
        ("absolute", f"{tmp_path}/folder/file"),
        ("again", "relative"),
        ("way", "folder"),
        ("up", "../" + tmp_path.name),
    ):
        (tmp_path / name).symlink_to(target)
    before = descriptors()
    for path in ("relative", "absolute", "again", "way/file", "up/up/way/../relative"):
        assert text(tmp_path / path) == "content", path
    assert descriptors() == before
    (tmp_path / "new").symlink_to("folder/made")
    os.close(open_file(str(tmp_path / "new"), WRITE))
    assert (tmp_path / "folder" / "made").exists()


def test_links_that_lead_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    refused(tmp_path / "one", "Too many levels of symbolic links")
    (tmp_path / "self").symlink_to(".")
    refused(tmp_path.joinpath(*["self"] * 50), "Too many levels of symbolic links")


@needs_root
@pytest.mark.parametrize("flags", [os.O_RDONLY, WRITE])
def test_a_link_of_another_user_is_not_followed(tmp_path: Path, flags: int) -> None:
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "file"
    target.write_text("precious")
    for name, leads_to in (("file-link", target), ("folder-link", target.parent)):
        (tmp_path / name).symlink_to(leads_to)
        os.lchown(tmp_path / name, 4242, 4242)
    (tmp_path / "mine").symlink_to("folder-link/file")
    for path in ("file-link", "folder-link/file", "mine"):
        refused(tmp_path / path, "a symbolic link of UID 4242 is on its path", flags)
    assert target.read_text() == "precious"

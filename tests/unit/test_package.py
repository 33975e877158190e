"""What is published: the sdist has all that git has, the wheel the package, and both the tag's version."""

from __future__ import annotations

import email
import email.message
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import istio_iptables

ROOT = Path(__file__).parents[2]
#: The clone may belong to another user than the one that tests.
GIT = ("git", "-c", "safe.directory=*", "-c", "user.name=test", "-c", "user.email=test@example.org")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        [*GIT, "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    ).stdout


def files_of_git() -> list[str]:
    return [name for name in git(ROOT, "ls-files", "-z").split("\0") if name and (ROOT / name).exists()]


pytestmark = [
    pytest.mark.slow,  # builds packages: left out of `make quick`
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a clone: it compares with git ls-files"),
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
    pytest.mark.xdist_group("package"),  # one build for all
]
Package = tuple[Path, Path]


def build(folder: Path, *kinds: str, umask: int = -1) -> list[Path]:
    """Build from a folder with the setuptools of this environment; return the files, by their names."""
    output = folder.parent / f"dist of {folder.name}"
    environment = {name: value for name, value in os.environ.items() if name != "ISTIO_IPTABLES_VERSION"}
    environment["SOURCE_DATE_EPOCH"] = "1700000000"
    command = [sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", str(output), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, umask=umask)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(output.iterdir())


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the files that git knows, as they are now, in one commit without a tag."""
    folder = tmp_path_factory.mktemp("package") / "clone"
    for name in files_of_git():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "all")
    return folder


@pytest.fixture(scope="module")
def built(clone: Path) -> Package:
    """The wheel and the sdist of a tagged commit, whose version is not that in the source."""
    git(clone, "tag", "v7.8.9")
    wheel, sdist = build(clone)
    git(clone, "tag", "--delete", "v7.8.9")
    assert (wheel.name, sdist.name) == (
        "istio_iptables-7.8.9-py3-none-any.whl",
        "istio_iptables-7.8.9.tar.gz",
    )
    return wheel, sdist


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def version_in(source: bytes) -> list[str]:
    return re.findall(r'^__version__ = "(.*)"', source.decode(), re.MULTILINE)


def test_the_sdist_has_what_git_has(built: Package) -> None:
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    made = {name for name in names if name.startswith("istio_iptables.egg-info/")} | {"PKG-INFO"}
    assert names - made == set(files_of_git())


def test_another_build_of_the_same_commit_gives_the_same_bytes(
    built: Package, clone: Path, tmp_path: Path
) -> None:
    """In another folder, at another time, with files of other times and permissions."""
    folder = tmp_path / "another"
    shutil.copytree(clone, folder)
    git(folder, "tag", "v7.8.9")
    for path in folder.rglob("*"):
        if path.is_file() and ".git" not in path.relative_to(folder).parts:
            path.chmod(path.stat().st_mode & 0o700)
            os.utime(path, (1_000_000_000, 1_000_000_000))
    again = build(folder, umask=0o077)
    assert [path.name for path in again] == [path.name for path in built]
    for one, other in zip(built, again, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_the_wheel_has_the_package_and_the_manual_page_alone(built: Package) -> None:
    with zipfile.ZipFile(built[0]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    data = {name.partition(".data/")[2] for name in names if ".data/" in name}
    programs = {
        f"scripts/{name}" for name in ("istio-iptables", "istio-clean-iptables", "istio-iptables-cni")
    }
    assert data == programs | {"data/share/man/man8/istio-iptables.8"}
    names = {name for name in names if ".data/" not in name}
    assert names == {name for name in files_of_git() if name.startswith("istio_iptables/")}


def test_no_compiler_is_needed(built: Package) -> None:
    """None of these has to be compiled."""
    needs = metadata(built[0]).get_all("Requires-Dist") or []
    extra = [need for need in needs if "extra ==" in need]
    names = {re.split(r"[ <>=!;]", need)[0] for need in needs if need not in extra}
    assert names == {"typer", "netaddr", "PyYAML"}
    assert "libiptc" in (metadata(built[0]).get_all("Provides-Extra") or [])  # of older command lines


def test_the_metadata_says_whose_it_is_and_where(built: Package) -> None:
    found = metadata(built[0])
    assert found["Author"]
    assert "Apache-2.0" in (found["License-Expression"], found["License"])  # by the age of setuptools
    urls = dict(line.split(", ") for line in found.get_all("Project-URL") or [])
    assert {"Documentation", "Changelog", "Source", "Issues", "Security"} <= urls.keys()
    start = urls["Source"]
    assert all(url.startswith(start) for url in urls.values())
    for url in urls.values():  # a page of this repository, if it names one
        path = re.fullmatch(rf"{re.escape(start)}/(?:blob|tree)/main/(.*)", url)
        assert path is None or (ROOT / path[1]).exists()


def test_the_version_is_that_of_the_tag(built: Package, clone: Path) -> None:
    """In the metadata and in the package; and the build has left the source as it was."""
    wheel, sdist = built
    assert metadata(wheel)["Version"] == "7.8.9"
    with zipfile.ZipFile(wheel) as archive:
        assert version_in(archive.read("istio_iptables/__init__.py")) == ["7.8.9"]
    with tarfile.open(sdist) as archive:
        source = archive.extractfile("istio_iptables-7.8.9/istio_iptables/__init__.py")
        assert source
        assert version_in(source.read()) == ["7.8.9"]
    assert git(clone, "status", "--porcelain", "--untracked-files=no") == ""


def test_the_version_stays_in_what_is_built_from_the_sdist(built: Package, tmp_path: Path) -> None:
    """Without git, and in the repository of another project, whose tags say nothing of this one."""
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "another project")
    git(tmp_path, "tag", "v1.1.1")
    with tarfile.open(built[1]) as archive:
        safely: dict[str, Any] = (
            {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        )  # from 3.11.4 on
        archive.extractall(tmp_path, **safely)
    (wheel,) = build(tmp_path / "istio_iptables-7.8.9", "--wheel")
    assert metadata(wheel)["Version"] == "7.8.9"


def asked(folder: Path, **environment: str) -> str:
    command = [sys.executable, str(folder / "tools/version.py")]
    variables = {"PATH": os.environ["PATH"], "HOME": os.devnull, **environment}
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def another(clone: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make a clone with these tags, and a commit after them."""

    def make(*tags: str, commits: int = 0) -> Path:
        folder = tmp_path / "another"
        git(clone, "clone", "--quiet", "--no-tags", str(clone), str(folder))
        for tag in tags:
            git(folder, "tag", tag)
        for _ in range(commits):
            git(folder, "commit", "--quiet", "--allow-empty", "--message", "more")
        return folder

    return make


def test_a_clone_without_tags_has_the_version_of_the_source(another: Callable[..., Path]) -> None:
    assert asked(another()) == istio_iptables.__version__


def test_a_commit_after_a_tag_comes_before_the_next_release(another: Callable[..., Path]) -> None:
    assert asked(another("v1.2.3", commits=2)) == "1.2.4.dev2"


def test_tags_of_other_kinds_do_not_count(another: Callable[..., Path]) -> None:
    assert asked(another("vendored", "v1-next", "1.2.3")) == istio_iptables.__version__


def test_a_build_without_git_is_told(another: Callable[..., Path]) -> None:
    folder = another("v1.2.3")
    assert asked(folder) == "1.2.3"
    assert asked(folder, ISTIO_IPTABLES_VERSION="4.5.6") == "4.5.6"


def bill(*arguments: str) -> Any:
    command = [sys.executable, str(ROOT / "tools/sbom.py"), *arguments]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def named(document: Any) -> set[str]:
    return {f"{part['name']}=={part['version']}" for part in document["components"]}


def test_the_bill_of_materials_has_every_locked_package() -> None:
    found = bill()
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    locked = (ROOT / "requirements/runtime.txt").read_text()
    assert named(found) == set(re.findall(r"^[\w.-]+==[^ \n]+", locked, re.MULTILINE))
    hashes = [
        one["content"]
        for part in found["components"]
        for reference in part["externalReferences"]
        for one in reference["hashes"]
    ]
    assert hashes == re.findall(r"--hash=sha256:([0-9a-f]{64})", locked)


def test_the_bill_of_an_image_has_what_is_installed_there(tmp_path: Path) -> None:
    """Not what the image leaves out of the locked packages; what is not locked is a fault of the image."""
    locked = (ROOT / "requirements/runtime.txt").read_text()
    for name in ("netaddr", "PyYAML"):
        (number,) = re.findall(rf"^{name.lower().replace('_', '-')}==(\S+)", locked, re.MULTILINE)
        (tmp_path / f"{name}-{number}.dist-info").mkdir()
    (tmp_path / "istio_iptables-0.1.0.dist-info").mkdir()
    installed = ("--installed", str(tmp_path))
    names = {name.partition("==")[0] for name in named(bill(*installed))}
    assert names == {"netaddr", "pyyaml"}
    (tmp_path / "surprise-1.0.dist-info").mkdir()
    with pytest.raises(subprocess.CalledProcessError) as failed:
        bill(*installed)
    assert "surprise==1.0" in failed.value.stderr

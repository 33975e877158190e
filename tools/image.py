#!/usr/bin/env python3
"""Builds the container image, or tries it: tools/image.py build|test [MORE FOR THE ENGINE OR PYTEST]

The environment says how; `make image` and `make image-test` hand their variables on:

    IMAGE      the image's name (istio-iptables)
    CNI_IMAGE  the name of the image of the CNI plugin's installer, for a test (istio-iptables-cni)
    ENGINE     docker or podman, with options if need be; by default whichever works, and podman for a test
    BASE       the image to build on, instead of the one that the Dockerfile names
    BASE_FROM  debootstrap: make the base out of Debian's packages, where no registry can be reached
    SUITE      the Debian release that such a base is made of (bookworm)
    MIRROR     where its packages come from (debootstrap's own default)
    REQUIRED   not empty: where there is no engine or no base, fail instead of skipping

What this machine's apt and pip are told about their package sources (proxies, an own index, own authorities)
the build is told too, as secrets: see the Dockerfile.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from elsewhere import ROOT, CannotBuild, apt_settings, ask, authorities, debootstrap, pip_settings, setting
from version import version

#: Where the Dockerfile has the authorities that its secret `ca.pem` brings.
AUTHORITIES_THERE = "/run/secrets/ca.pem"
#: What Debian's own slim Python images hold, pip among it, as far as it is a package.
BASE_PACKAGES = "python3,python3-venv,ca-certificates,netbase,tzdata"
#: What slim images of Debian do without, now and after later installations.
NOT_IN_SLIM = ("usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man")
#: What a system has of its own, or keeps only to be quicker the next time.
LEFTOVERS = (
    "etc/hostname",
    "etc/resolv.conf",
    "var/cache/apt/*.bin",
    "var/cache/apt/archives/*.deb",
    "var/cache/debconf/*-old",
    "var/cache/ldconfig/*",
    "var/lib/apt/lists/*",
    "var/lib/dpkg/*-old",
    "var/log/*",
)
#: Podman asks for a million of either, which is refused to a root that may not raise its limits.
LIMITS = 'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]'
PODMANS_WISH = 1048576


class Failed(Exception):
    """A command went wrong, and has said why."""


def say(text: str) -> None:
    """Tell the user something, now."""
    print(f"image: {text}", flush=True)


def run(*command: str | os.PathLike[str]) -> None:
    """Run a command that has to succeed; it is shown, and its output too."""
    print("+", shlex.join(map(str, command)), flush=True)
    if subprocess.run(command, check=False).returncode != 0:
        raise Failed(f"{command[0]} failed")


# --- the engine -----------------------------------------------------------------------------


def find_engine(names: Sequence[str]) -> tuple[str, ...]:
    """Return the command of the engine that was named, else of the first that works, else of a new podman."""
    named = setting("ENGINE")
    for engine in [named] if named else names:
        if works(engine):
            return tuple(engine.split())
    if not named or named.split()[0] == "podman":
        subprocess.run([ROOT / "tools/system-packages", "image"], check=False)
        if works(named or "podman"):
            return tuple((named or "podman").split())
    raise CannotBuild(f"{named or ' or '.join(names)} does not work here")


def works(engine: str) -> bool:
    """Tell whether an engine is there and can do something."""
    return ask(*engine.split(), "info") is not None


def is_podman(engine: Sequence[str]) -> bool:
    """Tell whether the engine is podman, also under docker's name."""
    return "podman" in (ask(*engine, "--version") or "")


@contextlib.contextmanager
def podman_within_limits() -> Iterator[None]:
    """Have podman ask for no more than this process may give, unless the user has configured podman."""
    highest = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if os.geteuid() != 0 or highest >= PODMANS_WISH or "CONTAINERS_CONF" in os.environ:
        yield
        return
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(f"[containers]\n{LIMITS}\n")
        file.flush()
        os.environ["CONTAINERS_CONF"] = file.name
        try:
            yield
        finally:
            del os.environ["CONTAINERS_CONF"]


# --- the base image -------------------------------------------------------------------------


def find_base(engine: Sequence[str]) -> str:
    """Return the name of the base image, which is there then. Raises CannotBuild."""
    if setting("BASE_FROM") not in ("", "debootstrap"):
        raise Failed(f"BASE_FROM={setting('BASE_FROM')}: it can be debootstrap only")
    if setting("BASE_FROM"):
        suite = setting("SUITE", "bookworm")
        name = setting("BASE", f"localhost/istio-iptables-base:{suite}")
        if not exists(engine, name):
            bootstrap(engine, suite, name)
        return name
    (default,) = re.findall(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    name = setting("BASE", default)
    if not exists(engine, name):
        pulled = subprocess.run(
            [*engine, "pull", "--quiet", name], capture_output=True, text=True, check=False
        )
        if pulled.returncode != 0:
            lines = pulled.stderr.strip().splitlines() or ["no reason given"]
            raise CannotBuild(
                f"the base image {name} is not to be had (BASE_FROM=debootstrap makes one): {lines[-1]}"
            )
    return name


def exists(engine: Sequence[str], name: str) -> bool:
    """Tell whether an image is in the engine's store."""
    return ask(*engine, "image", "inspect", name) is not None


def bootstrap(engine: Sequence[str], suite: str, name: str) -> None:
    """Make a base image like the slim ones of Python, out of Debian's packages."""
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    say(f"making {name}, once ...")
    # Not in /tmp, which may be small, and allow no devices.
    folder = tempfile.mkdtemp(prefix="istio-iptables-base-", dir="/var/tmp")
    try:
        debootstrap(suite, folder, BASE_PACKAGES)
        left_out = "".join(f"path-exclude /{path}/*\n" for path in NOT_IN_SLIM)
        slim = f"printf '{left_out}' >etc/dpkg/dpkg.cfg.d/slim; rm -rf {' '.join((*NOT_IN_SLIM, *LEFTOVERS))}"
        run(*as_root, "sh", "-c", f"cd {folder} && {slim}")
        packed = subprocess.Popen([*as_root, "tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE)
        imported = subprocess.run([*engine, "import", "-", name], stdin=packed.stdout, check=False)
        if packed.wait() or imported.returncode:
            raise Failed("the base could not be imported")
    finally:
        subprocess.run([*as_root, "rm", "-rf", "--one-file-system", folder], check=False)


# --- what the build has to know of this machine ---------------------------------------------


def secrets(folder: Path) -> Iterator[str]:
    """Write what apt and pip need to reach their sources; yield the options that hand it to the build."""
    of_here = authorities()
    there = AUTHORITIES_THERE if of_here else ""
    texts = {"apt.conf": apt_settings(there), "pip.conf": pip_settings(there)}
    for name, text in texts.items():
        (folder / name).write_text(text)
        yield f"--secret=id={name},src={folder / name}"
    if of_here:
        yield f"--secret=id=ca.pem,src={of_here}"


def labels() -> Iterator[str]:
    """Yield the options for what the image's labels say of its origin."""
    known = {
        "VERSION": version(),
        "REVISION": revision(),
        "SOURCE": setting("SOURCE"),
    }
    for name, value in known.items():
        if value:
            yield f"--build-arg={name}={value}"


def revision() -> str:
    """Return the commit that is built, or nothing where git does not say."""
    return setting("REVISION") or ask("git", "-C", str(ROOT), "rev-parse", "HEAD") or ""


def commit_time() -> str:
    """Return the time of the last commit, which all that is built from it can carry; or nothing."""
    return setting("SOURCE_DATE_EPOCH") or ask("git", "-C", str(ROOT), "log", "-1", "--format=%ct") or ""


# --- building and trying --------------------------------------------------------------------


def name() -> str:
    """Return the name of the image."""
    return setting("IMAGE", "istio-iptables")


def build(engine: Sequence[str], image: str, more: Sequence[str]) -> str:
    """Build the image and tell its size; return its name."""
    base = find_base(engine)
    options = [f"--build-arg=BASE={base}", *labels()]
    when = commit_time()
    if is_podman(engine):
        # The machine's own network needs no rules in its firewall, as a bridge would. Podman's cache of
        # layers has the labels of earlier builds, with their revision.
        options += ["--network=host", "--layers=false", *([f"--timestamp={when}"] if when else [])]
    elif when:
        options.append(f"--build-arg=SOURCE_DATE_EPOCH={when}")
    with tempfile.TemporaryDirectory(prefix="istio-iptables-image-") as folder:
        run(*engine, "build", f"--tag={image}", *options, *secrets(Path(folder)), *more, str(ROOT))
    whole, below = size(engine, image), size(engine, base)
    say(f"{image} has {whole:.1f} MB, its base {base} {below:.1f} MB: {whole - below:.1f} MB over the base")
    return image


def size(engine: Sequence[str], image: str) -> float:
    """Return the size of an image with all its layers, unpacked, in megabytes."""
    return int(ask(*engine, "image", "inspect", "--format={{.Size}}", image) or 0) / 1e6


def test(more: Sequence[str]) -> int:
    """Build both images with podman, try them in pods and on a node, and return pytest's exit code."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise CannotBuild("its tests need Linux and root, to wire pods in network namespaces")
    engine = find_engine(["podman"])
    if not is_podman(engine):
        raise CannotBuild("its tests need podman, which has pods")
    os.environ["REVISION"] = revision()  # of both, whatever is committed meanwhile
    os.environ["IMAGE"] = build(engine, name(), ())
    os.environ["CNI_IMAGE"] = build(engine, setting("CNI_IMAGE", "istio-iptables-cni"), ("--target=cni",))
    os.environ["BASE"] = find_base(engine)
    os.environ["ENGINE"] = shlex.join(engine)
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/image", *more]
    return subprocess.run(pytest, cwd=ROOT, check=False).returncode


def main(arguments: Sequence[str]) -> int:
    """Do what was asked for and return the exit code."""
    if arguments[:1] not in (["build"], ["test"]):
        print(__doc__, file=sys.stderr)
        return 2
    what, *more = arguments
    try:
        with podman_within_limits():
            if what == "test":
                return test(more)
            build(find_engine(["docker", "podman"]), name(), more)
            return 0
    except CannotBuild as why:
        must = setting("REQUIRED")
        print(f"image {what}: {'cannot be done' if must else 'skipped'}: {why}", file=sys.stderr, flush=True)
        return 1 if must else 0
    except Failed as why:
        print(f"image {what}: {why}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""tree: the plugin's files for a node, with an interpreter and all else, so that it needs nothing there.

`install` makes it out of what runs here, which in the image is what has been tested together:

    launch      the only program that a kernel can start by itself (tools/launch.c); it starts all others
    bin/        their names, which lead to it; first in PATH
    libexec/    Python, and iptables and nft as far as they are installed here
    lib/        the dynamic linker (ld.so), the libraries, iptables' extensions, Python's modules as bytecode

In the folder of plugins there is a link to `launch` under the plugin's name, and beside it the folder of
trees. A tree's name is a digest of what is in it. A new one is whole before the link is turned to it, in one
step; the one before it stays, since runs that began with it may not have ended.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import shutil
import sys
import sysconfig
import tempfile
import warnings
from contextlib import suppress

from ...errors import KernelError
from ...kernel.process import LAUNCHER, run, which
from ...startup.c_modules import blake2b
from ..names import PLUGIN
from . import elf, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: The folder of trees, beside the plugin.
TREES = f"{PLUGIN}.d"
#: The launcher in the image, below the prefix of the virtual environment.
_IN_IMAGE = "libexec/istio-iptables-launch"

#: The programs, with the names that they are called by.
_PROGRAMS = {
    "xtables-legacy-multi": [
        f"{command}-legacy{action}"
        for command in ("iptables", "ip6tables")
        for action in ("", "-save", "-restore")
    ],
    "xtables-nft-multi": [
        f"{command}-nft{action}"
        for command in ("iptables", "ip6tables")
        for action in ("", "-save", "-restore")
    ],
    "nft": [],
}
_EXTENSIONS = ("/usr/lib/xtables", "/usr/lib64/xtables", "/lib/xtables")
#: The packages that the plugin imports; those that are not installed here are not needed.
_PACKAGES = ("istio_iptables", "netaddr", "yaml", "_yaml")
#: Prints the names and files of all modules that are imported to ask the Kubernetes API (api_server.py):
#: the whole client library is larger than all the rest.
_MODULES_OF_API = """
import sys
sys.path[:] = sys.argv[1:]
sys.modules["kubernetes_validate"] = None  # what checks manifests is not needed, and large
try:
    from kubernetes import client, config
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError
except ImportError:
    sys.exit()
settings = client.Configuration()
settings.host = "http://127.0.0.1:9"  # nobody listens there: to look up and to load is all that this is for
settings.retries = False
try:
    client.CoreV1Api(client.ApiClient(settings)).read_namespaced_pod("a", "b", _preload_content=False)
except (HTTPError, OSError):
    pass
for name, module in sorted(sys.modules.items()):
    path = getattr(module, "__file__", None) or ""
    if "-packages/" in path:
        print(name, path, sep="\t")
"""
#: Of the standard library, what no plugin imports: other programs, tests, and what needs large libraries.
_LEFT_OUT_NAMES = """
    __phello__ __pycache__ _pyrepl antigravity cProfile curses dbm dist-packages distutils doctest ensurepip
    idlelib lib-dynload lib2to3 pdb profile pydoc_data site-packages sqlite3 test this tkinter turtle
    turtledemo unittest venv wsgiref xmlrpc
"""
_LEFT_OUT = frozenset(_LEFT_OUT_NAMES.split())
_LEFT_OUT_MODULES = (
    "_test",
    "_ctypes_test",
    "_xx",
    "xx",
    "_tkinter",
    "_sqlite3",
    "_curses",
    "_dbm",
    "_gdbm",
    "nis",
    "readline",
)
#: Parts of packages that the plugin does without: the vendors of network cards, tests, pages.
_LEFT_OUT_OF_PACKAGES = ("netaddr/eui/oui", "netaddr/eui/iab", "netaddr/tests", "istio_iptables/testing")


def installed(bin_dir: str) -> str:
    """Return the tree that the plugin in a folder is started from, nothing if it cannot be started."""
    launcher = os.path.realpath(os.path.join(bin_dir, PLUGIN))
    tree = os.path.dirname(launcher)
    whole = all(
        os.access(os.path.join(tree, part), os.X_OK) for part in (LAUNCHER, "libexec/python3", "lib/ld.so")
    )
    return tree if whole else ""


def install(bin_dir: str, launcher: str = "") -> list[str]:
    """Put the plugin's files into a folder of plugins. Return what was done, nothing if they are there.

    Raises KernelError if something that belongs into the tree is missing here.
    """
    # Not sys.prefix: without the module site, as in the image, that is not the virtual environment's.
    launcher = launcher or os.path.join(os.path.dirname(os.path.dirname(sys.executable)), _IN_IMAGE)
    if not os.path.isfile(launcher):
        raise KernelError(
            f"the launcher {launcher} is not there",
            "use the image that `make image` builds, or name another with --launcher",
        )
    trees = os.path.join(bin_dir, TREES)
    os.makedirs(trees, exist_ok=True)
    with files.locked(trees):
        for name in os.listdir(trees):
            if name.startswith(_UNFINISHED):
                shutil.rmtree(os.path.join(trees, name), ignore_errors=True)
        new = tempfile.mkdtemp(prefix=_UNFINISHED, dir=trees)
        try:
            _assemble(new, launcher)
            tree = os.path.join(trees, _digest(new))
            if installed(bin_dir) == os.path.realpath(tree):
                return []
            os.chmod(new, 0o755)
            if not os.path.isdir(tree):
                os.rename(new, tree)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        before = installed(bin_dir)
        _turn(bin_dir, os.path.join(TREES, os.path.basename(tree), LAUNCHER))
        _remove_others(trees, {os.path.basename(tree), os.path.basename(before)})
    return [f"{os.path.join(bin_dir, PLUGIN)}: leads to {tree}"]


def remove(bin_dir: str) -> list[str]:
    """Remove the plugin's files. Return what was done."""
    done: list[str] = []
    link, trees = os.path.join(bin_dir, PLUGIN), os.path.join(bin_dir, TREES)
    if os.path.lexists(link):
        os.unlink(link)
        done.append(f"{link}: removed")
    if os.path.isdir(trees):
        shutil.rmtree(trees)
        done.append(f"{trees}: removed")
    return done


_UNFINISHED = ".unfinished-"


def _turn(bin_dir: str, target: str) -> None:
    link = os.path.join(bin_dir, PLUGIN)
    new = os.path.join(bin_dir, TREES, ".link")
    with suppress(FileNotFoundError):
        os.unlink(new)
    os.symlink(target, new)
    os.rename(new, link)


def _remove_others(trees: str, kept: set[str]) -> None:
    for name in os.listdir(trees):
        if name not in kept:
            shutil.rmtree(os.path.join(trees, name), ignore_errors=True)


def _digest(tree: str) -> str:
    """Return a short digest of the names and contents of a tree.

    Of bytecode its header counts, which has a hash of the source: the rest differs from time to time.
    """
    digest = blake2b(digest_size=8)
    for folder, folders, names in os.walk(tree):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            digest.update(os.fsencode(os.path.relpath(path, tree)) + b"\0")
            if not os.path.islink(path):
                with open(path, "rb") as file:
                    digest.update(file.read(_HEADER_SIZE if name.endswith(".pyc") else -1))
    return digest.hexdigest()


# --- what is in it ------------------------------------------------------------------------------


def _assemble(tree: str, launcher: str) -> None:
    for folder in ("bin", "libexec", f"lib/{_python()}/lib-dynload"):
        os.makedirs(os.path.join(tree, folder))
    _copy(launcher, os.path.join(tree, LAUNCHER), 0o755)
    python = os.path.realpath(sys.executable)
    linker = elf.linker(python)
    _copy(linker, os.path.join(tree, "lib/ld.so"), 0o755)
    _copy(python, os.path.join(tree, "libexec/python3"), 0o755)
    loaded = elf.libraries(python, linker)
    for path in _programs(tree):
        loaded |= elf.libraries(path, linker)
        if os.path.basename(path).startswith("xtables"):
            _copy_extensions(os.path.join(tree, "lib/xtables"))
    for path in _modules(os.path.join(tree, "lib", _python())):
        loaded |= elf.libraries(path, linker)
    for name, path in loaded.items():
        _copy(path, os.path.join(tree, "lib", name), 0o644)


def _python() -> str:
    return f"python{sys.version_info[0]}.{sys.version_info[1]}"


def _copy(source: str, target: str, mode: int) -> None:
    with open(target, "wb") as file:
        file.write(elf.loadable(source))
    os.chmod(target, mode)


def _programs(tree: str) -> Iterator[str]:
    """Copy the programs that are installed here, and yield their paths here."""
    for program, called in _PROGRAMS.items():
        path = which(program)
        if not path:
            continue
        _copy(path, os.path.join(tree, "libexec", program), 0o755)
        for name in (program, *called):
            os.symlink(f"../{LAUNCHER}", os.path.join(tree, "bin", name))
            if name != program:
                os.symlink(program, os.path.join(tree, "libexec", name))
        yield path


def _copy_extensions(target: str) -> None:
    """Copy iptables' extensions, which are in a folder that is named for the processor in Debian."""
    found = [os.environ.get("XTABLES_LIBDIR", ""), *_EXTENSIONS, f"/usr/lib/{_multiarch()}/xtables"]
    for folder in found:
        if folder and os.path.isdir(folder):
            os.makedirs(target, exist_ok=True)
            for name in os.listdir(folder):
                if name.startswith(("libxt_", "libipt_", "libip6t_")):
                    _copy(os.path.join(folder, name), os.path.join(target, name), 0o644)
            return


def _multiarch() -> str:
    return str(sysconfig.get_config_var("MULTIARCH") or f"{os.uname().machine}-linux-gnu")


def _modules(target: str) -> Iterator[str]:
    """Copy Python's modules and the packages, as bytecode; yield the paths here of those written in C."""
    stdlib = sysconfig.get_path("stdlib")
    for name in sorted(os.listdir(stdlib)):
        if name.removesuffix(".py") not in _LEFT_OUT and not name.startswith("config-"):
            yield from _module(os.path.join(stdlib, name), target)
    dynload = next((path for path in sys.path if path.endswith("/lib-dynload")), "")
    for name in sorted(os.listdir(dynload) if dynload else ()):
        if not name.startswith(_LEFT_OUT_MODULES):
            yield from _module(os.path.join(dynload, name), os.path.join(target, "lib-dynload"))
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec and spec.origin:
            path = os.path.dirname(spec.origin) if spec.submodule_search_locations else spec.origin
            yield from _module(path, target)
    yield from _modules_of_api(target)


def _modules_of_api(target: str) -> Iterator[str]:
    """Copy what it takes to ask the Kubernetes API, if the client library is installed here."""
    for line in run((sys.executable, "-c", _MODULES_OF_API, *sys.path)).output.splitlines():
        name, _, path = line.partition("\t")
        folders = name.split(".")
        if folders[0] not in _PACKAGES and not folders[0].startswith("__"):
            is_package = os.path.basename(path).startswith("__init__.")
            inside = os.path.join(target, *(folders if is_package else folders[:-1]))
            yield from _module(path, inside)


def _module(path: str, target: str) -> Iterator[str]:
    name = os.path.basename(path)
    if os.path.isdir(path):
        if name in ("__pycache__", "test", "tests"):
            return
        for member in sorted(os.listdir(path)):
            if not any(f"{path}/{member}".find(f"/{part}") >= 0 for part in _LEFT_OUT_OF_PACKAGES):
                yield from _module(os.path.join(path, member), os.path.join(target, name))
    elif name.endswith(".py"):
        os.makedirs(target, exist_ok=True)
        with open(os.path.join(target, f"{name}c"), "wb") as file:
            file.write(_bytecode(path))
    elif name.endswith(".so"):
        os.makedirs(target, exist_ok=True)
        _copy(path, os.path.join(target, name), 0o644)
        yield path


#: The beginning of bytecode (PEP 552), before the hash of its source: that no source is looked for.
_UNCHECKED = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little")
_HEADER_SIZE = 16


def _bytecode(path: str) -> bytes:
    """Return the bytecode of a module for a place without its source: what Python has kept, if right."""
    with open(path, "rb") as file:
        source = file.read()
    header = _UNCHECKED + importlib.util.source_hash(source)
    with suppress(OSError), open(importlib.util.cache_from_source(path), "rb") as file:
        kept = file.read()
        flags, time, size = (int.from_bytes(kept[at : at + 4], "little") for at in (4, 8, 12))
        there = os.stat(path)
        is_of_source = (time, size) == (int(there.st_mtime) & 0xFFFFFFFF, there.st_size & 0xFFFFFFFF)
        if kept[:4] == importlib.util.MAGIC_NUMBER and (flags == 1 or (flags == 0 and is_of_source)):
            return header + kept[_HEADER_SIZE:]
    with warnings.catch_warnings(action="ignore"):  # packages have invalid escapes
        code = compile(source, os.path.basename(path), "exec", dont_inherit=True)
    return header + marshal.dumps(code)

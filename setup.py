"""The part of the build that is not data: the version, and the programs. All else is in setup.cfg."""

import gzip
import os
import sys
import tarfile
import time
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

from distutils.command.build_scripts import build_scripts  # isort: skip  # setuptools brings it

sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))
from version import LINE, version

VERSION = version()
LAUNCHER = Path(__file__).resolve().parent / "tools" / "launcher"


def write_version(package):
    """Write the version into a copy of the package, which may be a hard link to the source."""
    path = Path(package) / "__init__.py"
    text = LINE.sub(f'__version__ = "{VERSION}"', path.read_text())
    path.unlink()
    path.write_text(text)


class BuildPy(build_py):
    """Makes the package of a wheel. (An editable install has the source, as it is.)"""

    def run(self):
        """Copy the modules, then write the version."""
        super().run()
        if not self.editable_mode:
            write_version(Path(self.build_lib) / "istio_iptables")


#: The time of what an sdist holds (https://reproducible-builds.org/specs/source-date-epoch).
TIME = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())


def plain_mode(mode):
    """Return the permissions of a file without what the umask of a clone, or of a build, made of them."""
    return 0o755 if mode & 0o100 else 0o644


class Wheel(bdist_wheel):
    """Makes the wheel, so that two builds give the same bytes: setuptools takes the files' permissions."""

    def write_wheelfile(self, *args, **kwargs):
        """Write the last file, then give all files plain permissions."""
        super().write_wheelfile(*args, **kwargs)
        for folder, _, names in os.walk(self.bdist_dir):
            for path in (Path(folder, name) for name in names):
                path.chmod(plain_mode(path.stat().st_mode))


class Sdist(sdist):
    """Makes the sdist, so that two builds give the same bytes."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        """Write the archive; setuptools would write times and permissions of files, and when it was made."""
        path = f"{base_name}.tar.gz"
        with (
            open(path, "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=TIME) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            archive.add(base_dir, filter=self._plain)
        return path

    @staticmethod
    def _plain(member):
        member.mtime = TIME
        member.mode = plain_mode(member.mode)
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        return member

    def make_release_tree(self, base_dir, files):
        """Copy the files, then write the version."""
        super().make_release_tree(base_dir, files)
        write_version(Path(base_dir) / "istio_iptables")


#: All are tools/launcher: it runs the command that it is called by.
PROGRAMS = ("istio-iptables", "istio-clean-iptables", "istio-iptables-cni")


class BuildScripts(build_scripts):
    """Makes the programs that pip installs. Its `#!python` becomes the Python that it is installed for."""

    def run(self):
        """Write the launcher under the name of each program."""
        folder = Path(self.build_dir)
        folder.mkdir(parents=True, exist_ok=True)
        for name in PROGRAMS:
            (folder / name).write_bytes(LAUNCHER.read_bytes())
            (folder / name).chmod(0o755)


setup(
    version=VERSION,
    scripts=["tools/launcher"],
    cmdclass={"bdist_wheel": Wheel, "build_py": BuildPy, "build_scripts": BuildScripts, "sdist": Sdist},
)

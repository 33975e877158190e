"""The part of the build that is not data: the version, and the programs. All else is in setup.cfg."""

import sys
from pathlib import Path

from setuptools import setup
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


class Sdist(sdist):
    """Makes the sdist."""

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
    cmdclass={"build_py": BuildPy, "build_scripts": BuildScripts, "sdist": Sdist},
)

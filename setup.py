"""The part of the build that is not data: the version, from tools/version.py. All else is in setup.cfg."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))
from version import LINE, version

VERSION = version()


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


setup(version=VERSION, cmdclass={"build_py": BuildPy, "sdist": Sdist})

"""iptc_loader: import python-iptables without what makes its import slow or fragile.

As it comes, `import iptc` looks for its libraries with ldconfig, gcc and ld, starts modprobe, and
needs distutils, which Python 3.12 no longer has. All of that is in its module iptc.util, which
is replaced here before the import by three functions that ask the dynamic linker by soname.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

#: The libraries by the names that iptc asks for: sonames since iptables 1.8.
_SONAMES = {"xtables": "libxtables.so.12", "ip4tc": "libip4tc.so.2", "ip6tc": "libip6tc.so.2"}
_XTABLES_MAJOR_VERSION = 12


class LibiptcMissing(ImportError):
    """python-iptables, or a library it needs, cannot be loaded."""


def installed() -> bool:
    """Tell whether python-iptables is installed, without importing anything."""
    return any(os.path.exists(os.path.join(directory, "iptc", "__init__.py")) for directory in sys.path)


def load() -> ModuleType:
    """Return python-iptables' package `iptc`. Raises LibiptcMissing if it cannot be loaded."""
    if "iptc" in sys.modules:
        return sys.modules["iptc"]
    had_libdir = os.environ.get("XTABLES_LIBDIR")
    # Without the variable iptc runs ldconfig to find the extensions, of which we load none.
    os.environ.setdefault("XTABLES_LIBDIR", "/usr/lib/xtables")
    sys.modules["iptc.util"] = _util()
    try:
        import warnings

        with warnings.catch_warnings():
            # Its sources have invalid escapes, which Python 3.12 and later warn of when it compiles them.
            warnings.simplefilter("ignore")
            import iptc
    except (OSError, ImportError, AttributeError) as error:
        for name in [name for name in sys.modules if name.partition(".")[0] == "iptc"]:
            del sys.modules[name]
        raise LibiptcMissing(str(error)) from error
    finally:
        if had_libdir is None:
            del os.environ["XTABLES_LIBDIR"]  # children such as iptables-restore know better
    return iptc  # type: ignore[no-any-return]  # the package has no type hints


def _util() -> ModuleType:
    import ctypes
    import importlib.util
    from types import ModuleType

    def find_library(*names: str) -> tuple[ctypes.CDLL, int]:
        name = names[0]
        if name == "xtwrapper":
            spec = importlib.util.find_spec("libxtwrapper")
            if spec is None or spec.origin is None:
                raise ImportError("python-iptables is not installed: there is no libxtwrapper")
            return ctypes.CDLL(spec.origin, mode=ctypes.RTLD_GLOBAL), 0
        return ctypes.CDLL(_SONAMES[name], mode=ctypes.RTLD_GLOBAL), _XTABLES_MAJOR_VERSION

    def find_libc() -> ctypes.CDLL:
        return ctypes.CDLL(None, mode=ctypes.RTLD_GLOBAL)

    def load_kernel(name: str, exc_if_failed: bool = False) -> None:
        """Do nothing: the kernel loads what it needs when it may."""

    module = ModuleType("iptc.util")
    for function in (find_library, find_libc, load_kernel):
        setattr(module, function.__name__, function)
    return module

"""iptc_loader: import the part of python-iptables that is used, without what makes that slow or fragile.

Unmodified, `import iptc` looks for its libraries with ldconfig, gcc and ld, starts modprobe, and
needs distutils, which Python 3.12 no longer has. All of that is in its module iptc.util, which
is replaced here before the import by three functions that ask the dynamic linker by soname. It also
imports both families, a second interface above them, and what rules as objects and as text need: none of
that is used here, and it takes more than twice the time of all the rest.
"""

from __future__ import annotations

import errno
import os
import sys

from ...startup.c_modules import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from ...rules.model import Family

#: The libraries by the names that iptc asks for: sonames since iptables 1.8.
_SONAMES = {"xtables": "libxtables.so.12", "ip4tc": "libip4tc.so.2", "ip6tc": "libip6tc.so.2"}
_XTABLES_MAJOR_VERSION = 12


class LibiptcMissing(ImportError):
    """python-iptables, or a library it needs, cannot be loaded."""


def installed() -> bool:
    """Tell whether python-iptables is installed, without importing anything."""
    return any(os.path.exists(os.path.join(directory, "iptc", "__init__.py")) for directory in sys.path)


def load(family: Family) -> type:
    """Return python-iptables' class of the tables of a family, `Table` or `Table6`.

    Raises LibiptcMissing. Only for a process that does nothing but write with it: what iptc needs for rules
    as objects and as text is missing (see _stand_ins).
    """
    had_libdir = os.environ.get("XTABLES_LIBDIR")
    # Without the variable iptc runs ldconfig to find the extensions, none of which is loaded here.
    os.environ.setdefault("XTABLES_LIBDIR", "/usr/lib/xtables")
    lent: dict[str, ModuleType] = {}
    try:
        for name, module in _package().items():
            sys.modules.setdefault(name, module)
        lent = {name: module for name, module in _stand_ins().items() if name not in sys.modules}
        sys.modules.update(lent)
        return _table_class(family)
    except (OSError, ImportError, AttributeError) as error:
        _require_enough(error)
        raise LibiptcMissing(str(error)) from error
    finally:
        for name in lent:
            del sys.modules[name]
        if had_libdir is None:
            del os.environ["XTABLES_LIBDIR"]  # children such as iptables-restore have a better default


def _require_enough(error: Exception) -> None:
    """Raise OSError if the reason is that something has run out; dlopen(3) tells that in words alone."""
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        if (isinstance(error, OSError) and error.errno == number) or os.strerror(number) in str(error):
            raise OSError(number, os.strerror(number)) from error


def _table_class(family: Family) -> type:
    if family == "ipv4":
        from iptc.ip4tc import Table
    else:
        from iptc.ip6tc import Table6 as Table
    return Table  # type: ignore[no-any-return]  # the package has no type hints


def _package() -> dict[str, ModuleType]:
    """Return the package without its __init__, which imports both families and more, and a new iptc.util."""
    package = _module("iptc")
    package.__path__ = _found("iptc").submodule_search_locations or []
    if not os.path.exists(_found("iptc.ip4tc", package.__path__).cached or ""):
        # Its sources have invalid escapes, about which Python 3.12 and later warn when compiling them.
        import warnings

        warnings.simplefilter("ignore")
    return {"iptc": package, "iptc.util": _util()}


def _stand_ins() -> dict[str, ModuleType]:
    """Return stand-ins for standard modules that are slow to import.

    iptc needs most of them for rules as objects and as text; until there is one, it only compiles a pattern
    and makes empty caches. Of `socket` it uses the part that is written in C.
    """
    return {
        "re": _module("re", compile=str),
        "shlex": _module("shlex"),
        "weakref": _module("weakref", WeakValueDictionary=dict),
        "socket": socket,
    }


def _module(name: str, **contents: object) -> ModuleType:
    module = type(sys)(name)
    vars(module).update(contents)
    return module


def _found(name: str, path: Sequence[str] | None = None) -> ModuleSpec:
    """Return where a module is, as importlib.util.find_spec would (which takes a millisecond to import)."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, path)
        if spec is not None:
            return spec
    raise ImportError(f"python-iptables is not installed: there is no {name}")


def _util() -> ModuleType:
    import ctypes

    def find_library(*names: str) -> tuple[ctypes.CDLL, int]:
        name = names[0]
        if name == "xtwrapper":
            return ctypes.CDLL(_found("libxtwrapper").origin, mode=ctypes.RTLD_GLOBAL), 0
        return ctypes.CDLL(_SONAMES[name], mode=ctypes.RTLD_GLOBAL), _XTABLES_MAJOR_VERSION

    def find_libc() -> ctypes.CDLL:
        return ctypes.CDLL(None, mode=ctypes.RTLD_GLOBAL)

    def load_kernel(name: str, exc_if_failed: bool = False) -> None:
        """Do nothing: the kernel loads the modules that it needs."""

    return _module("iptc.util", find_library=find_library, find_libc=find_libc, load_kernel=load_kernel)

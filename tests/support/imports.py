"""imports: which modules a run imports."""

from __future__ import annotations

_LIST = """
    typer click rich shellingham netaddr yaml iptc ctypes setuptools distutils pyroute2
    logging dataclasses subprocess json difflib inspect argparse typing pathlib asyncio tempfile shutil shlex
    textwrap datetime decimal ipaddress ssl importlib.metadata importlib.resources unittest email http urllib
    string random threading concurrent multiprocessing signal locale gettext traceback ast dis tokenize pprint
    copy pickle hashlib secrets uuid configparser csv
    re enum socket selectors contextlib functools collections weakref importlib.util
"""


#: Modules that take milliseconds each, or bring in others that do.
EXPENSIVE = frozenset(_LIST.split())


def expensive(modules: set[str]) -> set[str]:
    return {module for module in EXPENSIVE if any(m == module or m.startswith(f"{module}.") for m in modules)}

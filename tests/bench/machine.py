"""The machine that was measured on, in general words."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version as installed
from pathlib import Path

from .place import check


def take() -> dict[str, str]:
    """Return what matters for the figures, and nothing that tells one machine from another of its kind."""
    return {
        "machine": f"{platform.machine().replace('_', '-')} {kind()}, {os.cpu_count()} cores, "
        f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GB of memory",
        "kernel": f"Linux {version(platform.release())}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "Python": platform.python_version(),
        "iptables": version(check(("iptables", "--version"))),
        "nftables": version(check(("nft", "--version"))),
        "istio-iptables": installed("istio-iptables"),
    }


def kind() -> str:
    """Return whether the processor says that it is virtual."""
    return "virtual machine" if re.search(r"^flags.*\bhypervisor\b", _cpuinfo(), re.MULTILINE) else "machine"


def version(text: str) -> str:
    """Return the first version number in a text, without what a distributor or builder added.

    >>> version("iptables v1.8.9 (nf_tables)"), version("6.1.0-18-amd64")
    ('1.8.9', '6.1.0')
    """
    found = re.search(r"\d+(\.\d+)+", text)
    return found[0] if found else "unknown"


def _cpuinfo() -> str:
    return Path("/proc/cpuinfo").read_text()

"""entries: a typed rule as the kernel's own structure (struct ipt_entry, ip6t_entry), and back.

Pure functions over bytes. Entries are built here, not by libxtables, to be fast with ten thousand rules and
to avoid its traps: interface masks and protocol flags are set as the kernel requires, host bits are cleared,
and no value reaches the C parsers of the extensions, which end the process if they reject one.

The layouts are those of the kernel's uapi headers: linux/netfilter_ipv4/ip_tables.h,
linux/netfilter_ipv6/ip6_tables.h and linux/netfilter/xt_*.h.
"""

from __future__ import annotations

from .decode import Decoder, decode
from .encode import Encoder, encode
from .layout import Unsupported

__all__ = ["Decoder", "Encoder", "Unsupported", "decode", "encode"]

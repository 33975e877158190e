"""legacy_entries: the bytes of a table of legacy iptables, as getsockopt(2) gives them.

The first byte says the family. Linux checks a table before it takes it; another kernel may not have. It is no
table of Linux, or its rules are rules: written, they are words that are read as the same words, and encoded
and decoded again they are the same.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from istio_iptables.api import build, configure
from istio_iptables.formats.iptables_args import rule_args
from istio_iptables.formats.iptables_restore import joined, split_args
from istio_iptables.kernel.xtables import read_tables
from istio_iptables.kernel.xtables.entries import Decoder, Unsupported, encode
from istio_iptables.rules.model import FAMILIES, Jump
from istio_iptables.settings.facts import Facts
from tests.fuzz.holding import allowed

#: struct ipt_getinfo without the name: the hooks in use, their first entries, and what is not looked at.
_INFO = struct.Struct("=I5I5III")
_OUTPUT = 3
_SETTINGS = (
    {"dual-stack": "true", "redirect-dns": "true", "drop-invalid": "true", "rule-comments": "true"},
    {
        "dual-stack": "true",
        "istio-inbound-interception-mode": "TPROXY",
        "istio-exclude-interfaces": "eth1,e+",
    },
    {"dual-stack": "true", "compact": "true", "istio-inbound-ports": "80,443,8000:8100"},
)


def corpus() -> Iterator[bytes]:
    facts = Facts(True, True, ("10.96.0.10", "fd00::a"))
    for settings in _SETTINGS:
        ruleset = build(configure(settings, environment=facts))
        for table in ruleset.tables:
            rules = [r for chain in table.chains for r in chain.rules if not isinstance(r.target, Jump)]
            entries = b"".join(encode(rule, table.family) for rule in rules)
            policy, error = (
                _bare(table.family, b"", struct.pack("=i", -2)),
                _bare(table.family, b"ERROR", b"ERROR"),
            )
            chain = _bare(table.family, b"ERROR", b"ISTIO_OUTPUT".ljust(32, b"\0"))
            info = _INFO.pack(1 << _OUTPUT, *[0] * 12)
            yield _head(table.family) + info + entries + policy + chain + policy + error


def _head(family: str) -> bytes:
    return bytes([FAMILIES.index(family)])


def _bare(family: str, target: bytes, payload: bytes) -> bytes:
    """Return an entry without matches."""
    head = bytearray(112 if family == "ipv4" else 168)
    body = payload + bytes(-len(payload) % 8)
    struct.pack_into("=HH", head, 88 if family == "ipv4" else 140, len(head), len(head) + 32 + len(body))
    return bytes(head) + struct.pack("=H29sB", 32 + len(body), target, 0) + body


def check(data: bytes) -> None:
    if len(data) < 1 + _INFO.size:
        return
    family = FAMILIES[data[0] & 1]
    info, blob = _INFO.unpack_from(data, 1), data[1 + _INFO.size :]
    chains = allowed(lambda: read_tables.chains_of(blob, info, family), OSError)
    if chains is None:
        return
    decoder = Decoder(family, frozenset(name for name, _ in chains))
    for entry, target in (rule for _, rules in chains for rule in rules):
        rule = allowed(lambda: decoder.decode(entry, target), OSError)  # noqa: B023  # called here
        if rule is None:
            continue
        words = rule_args(rule)
        assert split_args(joined(words)) == words
        if rule.raw:
            assert rule.raw == entry
        elif not isinstance(rule.target, Jump):
            try:
                again = encode(rule, family)
            except Unsupported:
                continue
            assert decoder.decode(again, target) == rule

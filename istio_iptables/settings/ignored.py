"""ignored: what other versions of Istio's tool have, or had, and what changes no rule here.

Each row is accepted as a flag, as a variable and in a --config file, and gets one warning. Its value is not
used; but a flag of a switch, and a file, must have a boolean. declared.py makes the rows into settings.
"""

from __future__ import annotations

from ..startup.record import Record

_NO_RULE = "ignored: it changes no rule (other versions of Istio's tool have it)"


class Ignored(Record):
    """A name without effect. `warning` is the text after the flag, variable or key that was given."""

    name: str
    short: str = ""
    is_boolean: bool = False
    has_flag: bool = True
    warning: str = _NO_RULE


IGNORED: tuple[Ignored, ...] = (
    Ignored("vklog"),
    Ignored("log_rotate"),
    Ignored("log_rotate_max_age"),
    Ignored("log_rotate_max_backups"),
    Ignored("log_rotate_max_size"),
    Ignored("restore-format", "f", is_boolean=True),
    Ignored("iptables-trace-logging", is_boolean=True),
    Ignored("iptables-version"),
    Ignored("output-paths"),
    Ignored("host-nsenter-exec", is_boolean=True),
    # Istio's documentation of virtual machines names it, and no version of its tool reads it.
    Ignored(
        "ISTIO_INBOUND_EXCLUDE_PORTS",
        has_flag=False,
        warning="ignored: no version of Istio's tool reads it: use ISTIO_LOCAL_EXCLUDE_PORTS",
    ),
)

"""meeting: whether a packet meets options of iptables, as the interpreter has it."""

from __future__ import annotations

from typing import Any

from istio_iptables.formats.iptables_restore import split_args
from istio_iptables.interpreter.addresses import address
from istio_iptables.interpreter.algebra import value_of
from istio_iptables.interpreter.iptables_options import foreign_match
from istio_iptables.interpreter.known import Known, Scope
from istio_iptables.interpreter.packet import Packet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from istio_iptables.rules.model import Family


def packet(**fields: Any) -> Packet:
    """A packet that a process of user 1000 sends from 10.0.0.1:40000 to 10.0.0.2:80, with changes.

    Addresses are texts; an IPv6 address makes it an IPv6 packet.
    """
    values: dict[str, Any] = {
        "source": "10.0.0.1",
        "destination": "10.0.0.2",
        "source_port": 40000,
        "destination_port": 80,
        "sent_to": "eth0",
        "uid": 1000,
        "gid": 1000,
        "tracked": True,
        **fields,
    }
    family: Family = "ipv4"
    for name in ("source", "destination", "original_source", "original_destination"):
        if isinstance(values.get(name), str):
            family, values[name] = address(str(values[name]))
    return Packet(**{"family": family, "protocol": 6, **values})


def meets(options: str, scope: Scope | None = None, **fields: Any) -> bool | None:
    """Whether a packet meets options of iptables."""
    found = packet(**fields)
    return value_of(foreign_match(split_args(options), scope or Scope(Known(), found.family)), found)

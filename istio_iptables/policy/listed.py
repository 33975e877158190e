"""listed: the lists among the settings, each of whose members the policy gives a rule of its own.

A rule that is made for a member names its list, so that a writer can write one rule for all of them: see
rules/lists.py.
"""

from __future__ import annotations

from ..rules.model import Destination, DestinationPort, GidOwner, Listed, Source

INBOUND_PORTS = Listed(DestinationPort, "listed inbound ports are captured")
INBOUND_PORTS_EXCLUDED = Listed(DestinationPort, "listed inbound ports are excluded")
OUTBOUND_PORTS = Listed(DestinationPort, "listed outbound ports are captured")
OUTBOUND_PORTS_EXCLUDED = Listed(DestinationPort, "listed outbound ports are excluded")
DESTINATIONS = Listed(Destination, "listed destinations are captured")
DESTINATIONS_EXCLUDED = Listed(Destination, "listed destinations are excluded")
GROUPS_EXCLUDED = Listed(GidOwner, "listed groups are excluded")
DNS_SERVERS = Listed(Destination, "queries to the DNS servers")
DNS_SERVERS_ANSWERING = Listed(Source, "answers of the DNS servers")

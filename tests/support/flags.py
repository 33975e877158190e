"""flags: a command line as Istio's injector writes it, and the commands that it may have."""

from __future__ import annotations

from istio_iptables.settings.commands import COMMANDS

INJECTOR = [
    *("-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", ""),
    *("-b", "*", "-d", "15090,15021,15020", "--log_output_level=default:info"),
]

#: All commands but those that mean the same as a flag.
PLAIN = [command for command in COMMANDS if command.name not in ("help", "version")]

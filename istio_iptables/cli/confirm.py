"""confirm: ask a person before the rules capture the traffic of a whole machine.

The rules are meant for a pod. In the machine's own network they send its TCP to a proxy, and where none
listens, the machine, ssh included, is unreachable at once.
"""

from __future__ import annotations

import os
import sys

from .streams import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..settings.config import Config


def is_at_a_terminal() -> bool:
    """Tell whether a person can be asked: all three streams are a terminal, and this is its foreground job.

    If any of them is not, this may be a script, which must go on without a question.
    """
    streams = (sys.stdin, sys.stdout, sys.stderr)
    if not all(stream is not None and stream.isatty() for stream in streams):
        return False
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return False


def ask(config: Config) -> bool:
    """Ask whether to apply. The end of the input, and every answer but `y` and `yes`, mean no."""
    complain(
        "this is the machine's own network, not that of a pod or container: TCP connections from and to this "
        f"machine are sent to the ports {config.outbound_port} and {config.inbound_port}, and fail unless a "
        "proxy listens there: apply? [y/N] "
    )
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        complain("\n")
    return answer.strip().lower() in ("y", "yes")

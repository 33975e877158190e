"""argv: the command line, an argument a line.

Whatever it is, it is an invocation with mistakes, or settings with one meaning. Of settings the rules can be
written, and read as what they are: no value becomes an option of a rule, or another rule. What the command
does not read itself is left to files: --config and --pod have harnesses of their own.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from istio_iptables.cli.collect import answer
from istio_iptables.settings.commands import COMMAND_BY_NAME
from istio_iptables.settings.declared import SETTINGS
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.settings.resolve import from_environment, parse_options
from tests.fuzz.holding import FACTS, GOLDEN, printable, settled

_TRACE = "trace out --to 10.0.0.1:80 --uid 1000 --ctstate NEW --mark 0x1/0xf --json -b *"


def corpus() -> Iterator[bytes]:
    for path in sorted(GOLDEN.glob("*.txt")):
        found = re.search(r"^#   arguments: +(.*)$", path.read_text(), re.MULTILINE)
        if found and found[1] != "none":
            yield "\n".join(shlex.split(found[1])).encode()
    yield "\n".join(_TRACE.split()).encode()
    for setting in SETTINGS:
        yield f"--{setting.name}={setting.default}".encode()
    for command in COMMAND_BY_NAME.values():
        options = [f"--{option.name}\n{option.default}" for option in command.options]
        yield "\n".join([command.name, *options]).encode()


def check(data: bytes) -> None:
    arguments = data.replace(b"\0", b"").decode("utf-8", "surrogateescape").split("\n")
    invocation = read_arguments(arguments)
    _, bad_answer = answer(invocation, FACTS)
    _, bad_options = parse_options(invocation.command, invocation.options, FACTS)
    mistakes = [*invocation.mistakes, *bad_answer, *bad_options]
    printable(mistakes)
    settled([*from_environment({}), *invocation.settings], mistakes, FACTS)

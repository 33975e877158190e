"""Print the manual page istio-iptables(8), made from the tables of settings and commands.

`make man` writes docs/istio-iptables.8 with it. The macros are those of man(7).
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from istio_iptables import __version__  # noqa: E402
from istio_iptables.rules import istio  # noqa: E402  # it need not be installed
from istio_iptables.rules.istio import PROGRAM  # noqa: E402
from istio_iptables.settings.commands import COMMANDS, EXAMPLES, EXIT_CODES, Command  # noqa: E402
from istio_iptables.settings.declared import SETTINGS, SOURCES, Setting  # noqa: E402

PAGE = ROOT / "docs/istio-iptables.8"
#: The day on which the text below was written; what comes from the tables is newer.
_DATE = "2026-11-26"
#: Length of lines before they are escaped: with it few are longer than 80, as mandoc likes them.
_WIDTH = 68

_DESCRIPTION = f"""\
{PROGRAM} writes the iptables or nftables rules that send the TCP traffic of a pod, or of a virtual
machine in a mesh, through its Envoy sidecar: outbound to port {istio.OUTBOUND_PORT}, inbound to port
{istio.INBOUND_PORT}. Envoy's own traffic (UID and GID {istio.PROXY_ID}) is left alone. It works in the
network namespace of the process, or in that of --network-namespace, and needs the capabilities
NET_ADMIN and NET_RAW.

Rules that are in place already are left alone, counters included. Rules that differ are replaced only
with --reconcile, one table at a time, each in one step. If a step fails, the steps before it are
undone.

In the machine's own network, outside of a container, a person at a terminal is asked before rules are
applied for the first time. --yes answers. Without a terminal nothing is asked.

istio-clean-iptables is the same as the command cleanup."""

_PRECEDENCE = """\
Every setting can be given by its flag, by the variable shown, in a --config file by its long name, or
by a --pod manifest. A flag takes precedence over a variable, a variable over a file, a file over a
manifest. Flags may be given before or after the command. A boolean takes a value only after "=":
--dual-stack=false. Lists are separated by commas. A value that cannot be used is an error wherever it
comes from; nothing is changed then."""

_VARIABLES = {
    "XTABLES_LOCKFILE": "Path of the lock file that iptables programs share, instead of /run/xtables.lock.",
    "NO_COLOR": "If it is set and not empty, output has no colours and no bold text.",
}
_FILES = {
    "/run/xtables.lock": "Locked while rules are read and written. With --cni-mode it is not used.",
    "/etc/resolv.conf": "Its servers are those whose queries --redirect-dns captures.",
}
_SEE_ALSO = ("iptables(8)", "ip-netns(8)", "iptables-restore(8)", "nft(8)")


def page() -> str:
    """Return the page."""
    return "".join(f"{line}\n" for line in _lines())


def _lines() -> Iterator[str]:
    yield r".\" Made by `make man` from istio_iptables/settings; changes made here are lost."
    yield f'.TH ISTIO-IPTABLES 8 "{_DATE}" "{PROGRAM}" "System Administration"'
    yield from (".nh", ".ad l")  # names are not hyphenated: they are copied
    yield from (
        ".SH NAME",
        rf"{_escaped(PROGRAM)}, istio\-clean\-iptables \- redirect traffic to an Envoy sidecar",
    )
    yield from (
        ".SH SYNOPSIS",
        f".B {_escaped(PROGRAM)}",
        r"[\fISETTING\fR ...] [\fICOMMAND\fR [\fIOPTION\fR ...]]",
    )
    yield from (".SH DESCRIPTION", *_paragraphs(_DESCRIPTION))
    yield ".SH COMMANDS"
    for command in COMMANDS:
        yield from _command(command)
    yield from (".SH SETTINGS", *_paragraphs(_PRECEDENCE))
    for group in dict.fromkeys(setting.group for setting in SETTINGS):
        yield f".SS {group}"
        members = [setting for setting in SETTINGS if setting.group == group]
        for setting in [*members, *(SOURCES if group == "Operation" else ())]:
            yield from _item(_syntax(setting), _described(setting))
    yield ".SH ENVIRONMENT"
    yield from _paragraphs("The variables of the settings are named above. Others:")
    yield from _items(_VARIABLES.items())
    yield from (".SH FILES", *_items(_FILES.items()))
    yield from (".SH EXIT STATUS", *_items((str(code), f"{text}.") for code, text in EXIT_CODES.items()))
    yield ".SH EXAMPLES"
    for line, text in EXAMPLES.items():
        yield from _item(rf"\fB{_escaped(line)}\fR", text)
    yield from (
        ".SH SEE ALSO",
        ",\n".join(f".BR {_escaped(n[:-3])} ({n[-2]})" for n in _SEE_ALSO).replace("),", ") ,"),
    )


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        yield from _wrapped(paragraph)


def _command(command: Command) -> Iterator[str]:
    operand = command.operand
    shown = "" if operand is None else f" {operand.usage}" if operand.least else f" [{operand.usage}]"
    yield from _item(rf"\fB{_escaped(command.name)}\fR{_escaped(shown)}", command.help)
    if command.options:
        yield ".RS"
        for option in command.options:
            yield from _item(_syntax(option), _described(option))
        yield ".RE"


def _syntax(setting: Setting) -> str:
    """Return how a setting is written: flags in bold, the value's kind in italics."""
    if not setting.has_flag:
        return rf"\fB{_escaped(setting.name)}\fR=\fI{setting.metavar}\fR"
    value = rf"[=\fI{setting.metavar}\fR]" if setting.is_boolean else rf" \fI{setting.metavar}\fR"
    short = rf"\fB\-{setting.short}\fR, " if setting.short else ""
    return rf"{short}\fB\-\-{_escaped(setting.name)}\fR{value}"


def _described(setting: Setting) -> str:
    text = setting.help
    if setting.default:
        text += f" Default: {setting.default.replace(__version__, 'VERSION')}."
    known = {variable.name for variable in SETTINGS}
    if setting.has_flag and setting.name in known and setting.variables:
        text += f" [{', '.join(setting.variables)}]"
    return text


def _items(items: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, text in items:
        yield from _item(rf"\fB{_escaped(term)}\fR", text)


def _item(term: str, text: str) -> Iterator[str]:
    yield from (".TP", term, *_wrapped(text))


def _wrapped(text: str) -> Iterator[str]:
    """Yield lines of text, escaped; one that begins with a dot would be a request."""
    for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False):
        yield rf"\&{_escaped(line)}" if line.startswith(".") else _escaped(line)


def _escaped(text: str) -> str:
    r"""Return text with escapes for what roff would change: backslashes, hyphens, quotes."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return text.replace("'", r"\(aq").replace("`", r"\(ga").replace("^", r"\(ha").replace("~", r"\(ti")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

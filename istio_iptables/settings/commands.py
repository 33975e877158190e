"""commands: every command, declared once, with its own options and its operands.

The command line, help and the docs read this table, as they read the table of the settings (declared.py).
"""

from __future__ import annotations

from .. import __version__
from ..rules.istio import PROGRAM
from ..startup.record import Record
from . import parsers
from .declared import option
from .node_commands import FOLDERS_FOR_DOCTOR, NODE_COMMANDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal, TypeAlias

    from .declared import Setting

    Style: TypeAlias = Literal["restore", "nft", "commands", "json"]
    PictureStyle: TypeAlias = Literal["mermaid", "dot", "svg"]


class Operand(Record):
    """An argument of a command that is not a flag: its name in help, and how many are allowed.

    `most` 0 means any number. If the operand is a source of settings, `source` is the name of that source.
    `values` are the only ones allowed, if they can be listed. If something else may follow the first one,
    `rest` is its name.
    """

    name: str
    help: str
    least: int = 1
    most: int = 1
    source: str = ""
    values: tuple[str, ...] = ()
    rest: str = ""

    @property
    def usage(self) -> str:
        """The operand in a usage line: FILE, or FILE... if several are allowed."""
        if self.rest:
            return f"{self.name} [{self.rest}...]"
        return self.name if self.most == 1 else f"{self.name}..."


class Command(Record):
    """A command: what it does, its own options, and its operand.

    If the name has two words, the first is the group that the command belongs to (see GROUPS). `handler` is
    the function that does it, in cli/handlers.py, or `MODULE.FUNCTION` in another module of cli, which is
    imported when it is needed; without one the command is about the command line itself, and
    __main__.py has it answered.
    `only_prints`: it neither reads nor changes the rules in the kernel, whatever the settings are.
    `without_capture`: it does its work also for a pod whose settings capture nothing.
    `without_namespace`: it enters the network namespace itself, and does its work also if it cannot.
    """

    name: str
    help: str
    handler: str = ""
    options: tuple[Setting, ...] = ()
    operand: Operand | None = None
    only_prints: bool = False
    without_capture: bool = False
    without_namespace: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the command's name on a command line."""
        return tuple(self.name.split())


def _format(*formats: str, help: str) -> Setting:
    return option("format", help, parsers.one_of(*formats), default=formats[0], metavar="FORMAT")


def _switch(name: str, help: str) -> Setting:
    return option(name, help, parsers.boolean, default="false", metavar="BOOL")


def _packet(parser: str) -> Callable[[str, parsers.Names], object]:
    """Return a parser of packet_parsers, which is imported when it is used: few runs need it."""

    def parse(text: str, names: parsers.Names) -> object:
        from . import packet_parsers

        return getattr(packet_parsers, parser)(text, names)

    return parse


#: What describes the packet of `trace`, and what to do with it.
_TRACE = (
    option(
        "to",
        "Where it is sent: ADDRESS:PORT, an IPv6 address in brackets. in: `:PORT` is enough.",
        _packet("endpoint"),
        metavar="ADDR:PORT",
    ),
    option(
        "from", "Where it comes from: ADDRESS or ADDRESS:PORT.", _packet("endpoint"), metavar="ADDR[:PORT]"
    ),
    option(
        "uid",
        "out: the user whose process sends it, a name or number; `none`: it belongs to no socket.",
        _packet("user"),
        metavar="USER",
    ),
    option(
        "gid",
        "out: the group of that process, by default the number of its user.",
        _packet("group"),
        metavar="GROUP",
    ),
    _switch("udp", "It is UDP, not TCP."),
    option(
        "protocol",
        "Its protocol, by default TCP: a name such as icmp, or its number. --to needs a port only if it has "
        "ports.",
        _packet("protocol"),
        metavar="PROTOCOL",
    ),
    option(
        "iface",
        "The interface: out, that its socket is bound to; in, that it comes in by.",
        _packet("interface"),
        metavar="NAME",
    ),
    option("mark", "Its mark.", _packet("mark"), default="0", metavar="MARK"),
    option("connmark", "The mark of its connection.", _packet("mark"), default="0", metavar="MARK"),
    option(
        "ctstate",
        "Its conntrack state.",
        parsers.one_of("NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", capitals=True),
        default="NEW",
        metavar="STATE",
    ),
    option("zone", "Its conntrack zone.", _packet("zone"), default="0", metavar="ZONE"),
    option(
        "own",
        "The pod's own addresses, where they cannot be read: a list.",
        _packet("own_addresses"),
        metavar="ADDRESSES",
    ),
    _switch("live", "Use the rules in the kernel, of all tables and backends, not those of the settings."),
    option(
        "file",
        "Use the rules of dumps (iptables-save, ip6tables-save, nft -j list ruleset, ip -j rule, route and "
        "addr); `-` is standard input. May be given several times.",
        parsers.anything,
        metavar="FILE",
        repeats=True,
    ),
    _switch(
        "watch",
        "Show real packets of this kind as they meet the rules in the kernel, until Ctrl-C. Needs root. "
        "Nothing of it stays, not even if it is killed.",
    ),
    option(
        "count",
        "--watch: end after as many packets; 0: go on until Ctrl-C.",
        _packet("count"),
        default="0",
        metavar="NUMBER",
    ),
    _switch("follow", "Go on with what the proxy does, hop by hop, until the connection arrives or loops."),
    option(
        "endpoint",
        "--follow: the endpoint that the proxy chooses for the destination, by default the destination.",
        _packet("endpoint"),
        metavar="ADDR:PORT",
    ),
    option(
        "proxy-runs-as",
        "--follow: the user that the proxy runs as, if it is not the one of --proxy-uid and --proxy-gid.",
        _packet("user_and_group"),
        metavar="USER[:GROUP]",
    ),
    _switch("json", "Print the answer as JSON."),
    option(
        "expect",
        "The verdict that is expected, such as `redirected 15001`: exit code 3 if it is another. With "
        "--follow a connection that loops has the verdict `loops`.",
        _packet("verdict"),
        metavar="VERDICT",
    ),
)


#: What `prove` judges, and by what.
_PROVE = (
    _switch("live", "Judge the rules in the kernel, of all tables and backends, not those of the settings."),
    option(
        "file",
        "Judge the rules of dumps, as for trace; `-` is standard input. May be given several times.",
        parsers.anything,
        metavar="FILE",
        repeats=True,
    ),
    option(
        "same-as",
        "Tell whether other rules do the same with every packet: `live`, a dump, or a file of settings as "
        "for --config. Several dumps may be given.",
        parsers.anything,
        metavar="FILE",
        repeats=True,
    ),
    _switch("dead", "Find the rules that no packet reaches, and which earlier rules take theirs."),
    option(
        "own",
        "The pod's own addresses: a list. By default addresses for documentation, with --live those of the "
        "namespace.",
        _packet("own_addresses"),
        metavar="ADDRESSES",
    ),
    _switch("json", "Print what was found as JSON."),
)

#: What `render` can write.
STYLES: tuple[Style, ...] = ("restore", "nft", "commands", "json")
#: What it can draw.
PICTURES: tuple[PictureStyle, ...] = ("mermaid", "dot", "svg")

#: The command of a command line that names none.
DEFAULT_COMMAND = "apply"

COMMANDS: tuple[Command, ...] = (
    Command(DEFAULT_COMMAND, "Put the rules in place (the default command).", "apply"),
    Command(
        "diff",
        "Show how the rules in place differ from the wanted ones: exit code 0 if they are equal, 3 if not.",
        "diff",
        (
            option("json", "Print the difference as JSON.", parsers.boolean, default="false", metavar="BOOL"),
            _switch(
                "verdicts",
                "Tell whether the difference changes what becomes of any packet, and show such packets.",
            ),
        ),
    ),
    Command(
        "status",
        "Show what is in place: the settings that the rules mean, what each rule has counted and why it is "
        "there. Exit code 0 if rules are in place (those of the settings, if any are given), 3 if not.",
        "status_handler.status",
        (
            option("json", "Print it as JSON.", parsers.boolean, default="false", metavar="BOOL"),
            option(
                "watch",
                "Go on until Ctrl-C: on a terminal show the counters and their rates, in a pipe print a JSON "
                "object per line when something has changed.",
                parsers.boolean,
                default="false",
                metavar="BOOL",
            ),
            option(
                "interval",
                "With --watch: how often to look, as a Go duration such as 500ms.",
                parsers.duration,
                default="1s",
                metavar="DURATION",
            ),
        ),
        without_capture=True,
    ),
    Command(
        "validate",
        "Prove with real connections that redirection works: exit code 0 if it does, 126 if not.",
        "validate",
        (option("json", "Print the report as JSON.", parsers.boolean, default="false", metavar="BOOL"),),
    ),
    Command(
        "doctor",
        "Find what makes a run fail here, without changing anything: exit code 0 if nothing does, 3 if "
        "something does.",
        "doctor_handler.examine_here",
        (
            _switch("json", "Print the checks as JSON."),
            *FOLDERS_FOR_DOCTOR,
        ),
        without_namespace=True,
    ),
    Command(
        "cleanup",
        "Remove everything that istio-iptables has set up, whatever the settings are.",
        "cleanup",
        without_capture=True,
    ),
    Command(
        "render",
        "Print the rules for the settings: nothing is changed.",
        "print_rules",
        (
            option(
                "family",
                "Print only this family, ipv4 or ipv6: iptables-restore takes one family at a time.",
                parsers.one_of("ipv4", "ipv6", "", empty=""),
                metavar="FAMILY",
            ),
            option(
                "format",
                "restore (for iptables-restore --noflush), nft (for nft -f), commands (for sh) or json; or a "
                "picture of the packets' way: svg, mermaid or dot. By default what apply would load.",
                parsers.one_of(*STYLES, *PICTURES, "", empty=""),
                metavar="FORMAT",
            ),
            option(
                "explain",
                "Print the reason for each rule above it, as a comment (json has the reasons anyway).",
                parsers.boolean,
                default="false",
                metavar="BOOL",
            ),
            option(
                "trace",
                "Light up the way of one packet in a picture: `out` or `in` with the options of trace, in "
                "one text, as in 'out --uid 1000 --to 10.1.2.3:80'; with --follow through the proxy too.",
                parsers.anything,
                metavar="PACKET",
            ),
            _switch("live", "Draw the rules in the kernel, of all tables and backends."),
        ),
        only_prints=True,
    ),
    Command(
        "trace",
        "Follow one packet through the rules, `out` of the pod or `in`: which rules decide, where it goes.",
        "trace_handler.follow_packet",
        _TRACE,
        Operand(
            "DIRECTION",
            "out: sent by a process here; in: received from an interface.",
            values=("out", "in"),
        ),
        only_prints=True,
        without_capture=True,
    ),
    Command(
        "prove",
        "Prove that rules do what the settings promise, with every packet there can be: exit code 0 if all "
        "of it is proved, 3 if not.",
        "prove_handler.prove",
        _PROVE,
        only_prints=True,
    ),
    Command(
        "report",
        "Write a page for a browser: settings, the way of packets, connections to choose, rules and reasons.",
        "picture_handlers.write_report",
        (
            option(
                "html",
                "The file to write, which is replaced if it exists; `-` is standard output.",
                parsers.anything,
                metavar="FILE",
            ),
            _switch("live", "Show the rules in the kernel, with their counters, not those of settings."),
            option(
                "own",
                "The pod's own addresses: a list. By default addresses for documentation, with --live those "
                "of the namespace.",
                _packet("own_addresses"),
                metavar="ADDRESSES",
            ),
        ),
        only_prints=True,
        without_capture=True,
    ),
    Command(
        "pod args",
        "Print the arguments for a pod's manifest, and where each value comes from.",
        "pod_handlers.arguments",
        (
            _format(
                "yaml",
                "json",
                "shell",
                help="yaml (a list for `args:`, with comments), json (with origins) or shell (a command).",
            ),
        ),
        Operand("FILE", "Manifest of the pod, `-` for standard input.", source="pod"),
        only_prints=True,
    ),
    Command(
        "pod lint",
        "Find settings in manifests that do not do what they say: exit code 0 if none, 3 if there are some.",
        "pod_handlers.findings",
        (
            option("json", "Print the findings as JSON.", parsers.boolean, default="false", metavar="BOOL"),
            option(
                "ignore",
                "Kinds of findings to leave out: a list of the words in [brackets].",
                parsers.texts,
                metavar="KINDS",
            ),
        ),
        Operand("FILE", "Manifests, `-` for standard input.", most=0),
        only_prints=True,
        without_capture=True,
    ),
    Command(
        "pod init-container",
        "Print an entry for a pod's initContainers that sets up the rules.",
        "pod_handlers.init_container",
        (
            option(
                "image",
                "Image of the container.",
                parsers.image,
                default=f"{PROGRAM}:{__version__}",
                metavar="IMAGE",
            ),
            _format("yaml", "json", help="yaml (an entry of a list) or json (the container alone)."),
            _switch("cni", "A CNI plugin writes the rules: the entry only proves that they are there."),
        ),
        Operand(
            "FILE", "Manifest of the pod; without it only the other settings are used.", least=0, source="pod"
        ),
        only_prints=True,
    ),
    *(
        Command(
            f"cni {name}",
            help,
            f"cni_handlers.{name}",
            options,
            only_prints=True,
            without_capture=True,
            without_namespace=True,
        )
        for name, help, options in NODE_COMMANDS
    ),
    Command(
        "completion",
        "Print the script that completes command lines in a shell.",
        operand=Operand("SHELL", "bash, zsh or fish.", values=("bash", "zsh", "fish")),
    ),
    Command("version", "Print the version (also -V, --version)."),
    Command(
        "help", "Print help, or the help of a command.", operand=Operand("COMMAND", "The command.", 0, 2)
    ),
)
COMMAND_BY_NAME: Mapping[str, Command] = {command.name: command for command in COMMANDS}
#: The groups of commands, and what the commands of each are about.
GROUPS: Mapping[str, str] = {
    "pod": "Read settings from the manifest of a pod, and check them.",
    "cni": "Put the CNI plugin on a node, keep it there, and repair pods that started without it.",
}

#: Command lines for help and the manual page, and what they do.
EXAMPLES: Mapping[str, str] = {
    f"{PROGRAM} -d 15090,15021,15020 --dry-run": "Print the rules that would be applied; change nothing.",
    f"{PROGRAM} -x 10.0.0.0/8 --reconcile": (
        f"Capture everything but one CIDR, and replace what {PROGRAM} has set up before."
    ),
    f"{PROGRAM} render --format commands --explain": "Print every rule, and why it is there.",
}
#: Exit codes, and what each means.
EXIT_CODES: Mapping[int, str] = {
    0: "done or nothing to do",
    1: "failed, everything is as before",
    2: "bad usage or settings, nothing was changed",
    3: f"other rules of {PROGRAM} are in place and --reconcile is not given (diff: they differ; status: they "
    "differ or are absent; trace: not the expected verdict; prove: not everything is proved; doctor: a run "
    "would fail; pod lint: findings; cni status: not as it should be)",
    126: "redirection does not work, or could not be proven to (validate)",
}

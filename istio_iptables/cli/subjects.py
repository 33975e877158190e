"""subjects: the rules that `prove` judges: of settings, in the kernel, of dumps, or of a plan.

They are all in one network, or packets could not be compared: that of the kernel or of dumps, if one of them
tells of it, else an assumed one, whatever this machine has.
"""

from __future__ import annotations

from ..errors import DumpError, SettingsError
from ..interpreter.known import NOTHING_KNOWN
from ..interpreter.program import Program
from ..interpreter.surroundings import World
from ..policy import build
from ..prove.after import after
from ..prove.space import names_of
from ..prove.subject import Subject, assumed
from ..rules.model import FAMILIES, Cidr
from ..settings.declared import SOURCE_BY_NAME
from ..settings.go_flags import Invocation
from ..settings.resolve import Operation, parse, resolve
from ..settings.texts import Given
from ..startup.record import Record
from ..trace import dumps, here
from ..trace.packet import SOME_OWN
from ..trace.world import of_ruleset, with_objects
from .collect import collect, is_settings, text_of_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..change.plan import Plan
    from ..interpreter.routing import Network
    from ..rules.model import RoutingObject
    from ..settings.config import Config
    from ..settings.environment import Environment
    from ..trace.dumps import Rules
    from .context import Context


class PodOf:
    """An Environment: a pod whose addresses are given, all else is as on this machine."""

    def __init__(self, machine: Environment, own: Iterable[Cidr]) -> None:
        families = {cidr.family for cidr in own}
        self._families = "ipv4" in families, "ipv6" in families
        self.dns_servers = machine.dns_servers
        self.user_id = machine.user_id
        self.group_id = machine.group_id

    def usable_families(self) -> tuple[bool, bool]:
        """Return whether the pod has addresses of IPv4 and of IPv6."""
        return self._families


class Source(Record):
    """Rules of which the network is not known yet; `network` is that which they were read with, if any.

    `objects` are the routing rules and routes that belong to the rules and are not in that network.
    """

    title: str
    program: Program
    settings: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    objects: tuple[RoutingObject, ...] = ()
    rules: Rules | None = None
    network: Network | None = None
    is_live: bool = False


# --- sources --------------------------------------------------------------------------------


def of_settings(config: Config, native: bool, settings: tuple[str, ...] = (), title: str = "") -> Source:
    """Return the rules that settings mean; `settings` are the arguments that mean them."""
    ruleset = build(config)
    program = Program(tuple(of_ruleset(ruleset, NOTHING_KNOWN, native=native)))
    how = "native nftables" if native else "iptables"
    return Source(f"{title or 'of the settings'} ({how})", program, settings, objects=ruleset.routing)


def in_kernel(settings: tuple[str, ...] = ()) -> Source:
    """Return the rules in the kernel, of all tables and backends. Raises KernelError."""
    rules = here.rules()
    title, network = "in the kernel", here.network()
    return Source(title, rules.program, settings, ("--live",), rules=rules, network=network, is_live=True)


def of_dumps(texts: Sequence[tuple[str, str]], settings: tuple[str, ...] = ()) -> Source:
    """Return the rules of dumps, pairs of a file's name and its text. Raises DumpError."""
    try:
        rules = dumps.read([dumps.Source(called(file), text) for file, text in texts])
    except SettingsError as error:
        raise DumpError(str(error)) from error
    nothing = [
        f"{called(file)}: neither a dump of rules or routes nor settings: use iptables-save, ip6tables-save, "
        "nft -j list ruleset or ip -j, or a mapping of long flag names to values"
        for file, text in texts
        if text.strip() and not any(line.startswith(f"{called(file)}: ") for line in rules.read)
    ]
    if nothing:
        raise DumpError("\n".join(nothing))
    title = f"of {', '.join(called(file) for file, _ in texts)}"
    arguments = tuple(word for file, _ in texts for word in ("--file", file))
    return Source(title, rules.program, settings, arguments, rules=rules, network=rules.network)


def called(file: str) -> str:
    """Return what a file is called in messages."""
    return "standard input" if file == "-" else file


def texts_of(files: Sequence[str], option: str) -> list[tuple[str, str]]:
    """Return the names and texts of files. Raises DumpError if one cannot be read."""
    try:
        return [(file, text_of_file(file, option)) for file in files]
    except SettingsError as error:
        raise DumpError(str(error)) from error


# --- the rules of one run -------------------------------------------------------------------


class Subjects:
    """The rules that the command line names, and the settings that say what they are to do."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._own: tuple[Cidr, ...] = context.options.get("own", ())
        self.config, self._asked = self._read()

    @property
    def asked(self) -> Subject:
        """The rules to be judged."""
        [subject] = self._subjects((self._asked,))
        return subject

    def pair(self) -> tuple[Subject, Subject]:
        """Return the rules to be compared, in one network."""
        one, other = self._subjects((self._asked, self._other(self._context.options["same-as"])))
        return one, other

    def _read(self) -> tuple[Config, Source]:
        context, options = self._context, self._context.options
        settings = arguments_of(context.invocation)
        if files := options.get("file"):
            source = of_dumps(texts_of(files, "--file"), settings)
            own = self._own or _own_of(source.network) or examples(FAMILIES)
            config, _ = resolve(context.parsed, PodOf(context.facts, own))
            return config, source.replace(objects=() if source.network else build(config).routing)
        config = context.config(PodOf(context.facts, self._own) if self._own else None)
        if options.get("live"):
            return config, in_kernel(settings)
        return config, of_settings(config, context.operation.native_nftables, settings)

    def _other(self, files: Sequence[str]) -> Source:
        """Return the rules of --same-as: those in the kernel, of dumps, or of a file of settings."""
        if "live" in files:
            return in_kernel(arguments_of(self._context.invocation))
        texts = texts_of(files, "--same-as")
        if not any(is_settings(text) for _, text in texts):
            source = of_dumps(texts, arguments_of(self._context.invocation))
            return source.replace(objects=() if source.network else build(self.config).routing)
        if len(texts) > 1:
            raise SettingsError(["--same-as: a file of settings is compared alone: give one file"])
        return self._of_settings_file(files[0])

    def _of_settings_file(self, file: str) -> Source:
        """Return the rules that `--config FILE` would mean here, without the flags of this command line."""
        context = self._context
        origin = Given(SOURCE_BY_NAME["config"], file, "--same-as")
        given, mistakes = collect(Invocation(sources=(origin,)), context.environ)
        parsed = parse(given, context.facts, mistakes)
        environment = PodOf(context.facts, self._own) if self._own else context.facts
        config, _ = resolve(parsed, environment)
        native = parsed.operation().native_nftables
        return of_settings(config, native, ("--config", file), f"of the settings in {called(file)}")

    def _subjects(self, sources: Sequence[Source]) -> list[Subject]:
        return subjects_of(sources, self._own or self._examples(sources))

    def _examples(self, sources: Sequence[Source]) -> tuple[Cidr, ...]:
        """Return addresses for documentation: the rules that settings mean depend on the families here."""
        if any(each.rules for each in sources):
            return examples(FAMILIES)
        there = self._context.facts.usable_families()
        return examples([family for family, is_there in zip(FAMILIES, there, strict=True) if is_there])


def subjects_of(sources: Sequence[Source], own: tuple[Cidr, ...] = ()) -> list[Subject]:
    """Return subjects in one network; with addresses `own` unless one of them tells of its network."""
    known = next((each for each in sources if each.network), None)
    if known is None or known.network is None:
        names = [name for each in sources for name in names_of(each.program)]
        namespace = World(Program(), assumed(own, names))
        return [_subject(each, namespace, own) for each in sources]
    if known.is_live and known.rules:
        namespace = here.world(known.rules, known.network)
    else:
        namespace = World(Program(), known.network)
    return [_subject(each, namespace, ()) for each in sources]


def _subject(source: Source, namespace: World, own: tuple[Cidr, ...]) -> Subject:
    network = source.network or with_objects(namespace.network, source.objects)
    world = namespace.replace(program=source.program, network=network)
    if source.network:
        own = ()
    arguments = source.arguments
    if own:
        arguments = (*arguments, "--own", ",".join(str(cidr).partition("/")[0] for cidr in own))
    rules = source.rules
    read, unread = (rules.read, rules.unread) if rules else ((), ())
    return Subject(source.title, world, source.settings, arguments, read, unread, own, source.objects)


def of_plan(subject: Subject, plan: Plan) -> Subject:
    """Return the rules that the kernel will have once a plan is carried out; `subject` are those it has."""
    world = after(subject.world, plan.actions)
    return subject.replace(title="in the kernel after apply", world=world, can_be_traced=False)


def _own_of(network: Network | None) -> tuple[Cidr, ...]:
    if network is None:
        return ()
    return tuple(
        Cidr(4 if family == "ipv4" else 6, each.address, each.prefix)
        for family in FAMILIES
        for each in network.own(family)
    )


def examples(families: Sequence[str]) -> tuple[Cidr, ...]:
    """Return addresses for documentation as those of a pod that has some families, IPv4 if none."""
    made = {"ipv4": Cidr(4, SOME_OWN["ipv4"], 32), "ipv6": Cidr(6, SOME_OWN["ipv6"], 128)}
    return tuple(made[family] for family in families or ("ipv4",))


def arguments_of(invocation: Invocation) -> tuple[str, ...]:
    """Return the arguments of a command line that say what the rules are, and not how to run."""
    how_to_run = frozenset(Operation._fields) - {"native_nftables", "network_namespace"}
    given = [
        *(source for source in invocation.sources if source.setting.name != "yes"),
        *(
            each
            for each in invocation.settings
            if each.setting.field and each.setting.field not in how_to_run
        ),
    ]
    return tuple(f"--{each.setting.name}={each.text}" for each in given)

"""subjects: the rules that `prove` judges: of settings, in the kernel, of dumps, or of a plan.

They are all in one network, or packets could not be compared: that of the kernel or of dumps, if one of them
tells of it, else an assumed one, whatever this machine has.
"""

from __future__ import annotations

from ..errors import DumpError, SettingsError
from ..interpreter.known import NOTHING_KNOWN
from ..interpreter.program import Program
from ..interpreter.routing import Network
from ..interpreter.surroundings import World
from ..policy import build
from ..prove.after import after
from ..prove.space import names_of
from ..prove.subject import Subject, assumed
from ..rules.model import FAMILIES
from ..settings.resolve import HOW_TO_RUN, from_environment, parse, resolve
from ..startup.record import Record
from ..trace import dumps, here
from ..trace.world import examples, of_ruleset, proxy_of, with_objects
from .collect import from_text, is_settings, text_of_file
from .live import PodOf, own_of, understood

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..change.plan import Plan
    from ..interpreter.verdict import Proxy
    from ..rules.model import Cidr, RoutingObject
    from ..settings.config import Config
    from ..settings.go_flags import Invocation
    from ..trace.dumps import Rules
    from .context import Context


class Source(Record):
    """Rules that may not tell which network they are in; see Subject for what the fields are.

    `network` is that which they were read with, if any. `objects` are the routing rules and routes that
    belong to the rules and are not in that network.
    """

    title: str
    program: Program
    settings: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    objects: tuple[RoutingObject, ...] = ()
    rules: Rules | None = None
    network: Network | None = None
    is_live: bool = False
    is_whole: bool = True
    proxy: Proxy | None = None


# --- sources --------------------------------------------------------------------------------


def of_settings(config: Config, native: bool, settings: tuple[str, ...] = (), title: str = "") -> Source:
    """Return the rules that settings mean; `settings` are the arguments that mean them."""
    ruleset = build(config)
    program = Program(tuple(of_ruleset(ruleset, NOTHING_KNOWN, native=native)))
    how = "native nftables" if native else "iptables"
    return Source(f"{title or 'of the settings'} ({how})", program, settings, objects=ruleset.routing)


def in_kernel(settings: tuple[str, ...] = ()) -> Source:
    """Return the rules in the kernel, of all tables and backends. Raises KernelError."""
    network = here.network() or Network()
    rules = here.rules(network)
    return Source(
        "in the kernel",
        rules.program,
        settings,
        ("--live",),
        rules=rules,
        network=network,
        is_live=True,
        is_whole=not rules.unread,
    )


def of_dumps(texts: Mapping[str, str], settings: tuple[str, ...] = ()) -> Source:
    """Return the rules of dumps, texts by the names of files. Raises DumpError if one cannot be read."""
    rules = dumps.read([dumps.Source(called(file), text) for file, text in texts.items()])
    arguments = tuple(word for file in texts for word in ("--file", file))
    return Source(
        f"of {', '.join(map(called, texts))}",
        rules.program,
        settings,
        arguments,
        rules=rules,
        network=rules.network,
        is_whole=not rules.unread,
    )


def called(file: str) -> str:
    """Return what a file is called in messages."""
    return "standard input" if file == "-" else file


def texts_of(files: Sequence[str], option: str) -> dict[str, str]:
    """Return the texts of files by their names, each read once. Raises DumpError if one cannot be read."""
    try:
        return {file: text_of_file(file, option) for file in dict.fromkeys(files)}
    except SettingsError as error:
        raise DumpError(str(error)) from error


# --- the rules of one run -------------------------------------------------------------------


class Subjects:
    """The rules that the command line names, and the settings that say what they are to do."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._own: tuple[Cidr, ...] = context.options["own"]
        self._words = arguments_of(context.invocation)
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
        if files := options["file"]:
            source = of_dumps(texts_of(files, "--file"), self._words)
            pod = PodOf(context.facts, self._own or own_of(source.network) or examples(FAMILIES))
            return self._understood(source, lambda: resolve(context.parsed, pod)[0])
        if options["live"]:
            return self._understood(in_kernel(self._words), context.config)
        config = context.config(PodOf(context.facts, self._own) if self._own else None)
        return config, of_settings(config, context.operation.native_nftables, self._words)

    def _understood(self, source: Source, given: Callable[[], Config]) -> tuple[Config, Source]:
        """Return the settings that rules are judged by, and the rules with their reasons (see live.py)."""
        assert source.rules
        found = understood(self._context, source.rules, given)
        source = source.replace(program=found.rules.program, rules=found.rules)
        return found.config, self._with_objects(source, found.config)

    @staticmethod
    def _with_objects(source: Source, config: Config) -> Source:
        """Return a source; dumps without routes are taken to have those that the settings mean."""
        return source if source.network else source.replace(objects=build(config).routing)

    def _other(self, files: Sequence[str]) -> Source:
        """Return the rules of --same-as: those in the kernel, of dumps, or of a file of settings."""
        if "live" in files:
            return in_kernel(self._words)
        texts = texts_of(files, "--same-as")
        if not any(is_settings(text) for text in texts.values()):
            try:
                return self._with_objects(of_dumps(texts, self._words), self.config)
            except DumpError as error:
                raise DumpError(f"--same-as: neither a file of settings nor a dump: {error}") from error
        if len(texts) > 1:
            raise SettingsError(["--same-as: a file of settings is compared alone: give one file"])
        [(file, text)] = texts.items()
        return self._of_settings_file(file, text)

    def _of_settings_file(self, file: str, text: str) -> Source:
        """Return the rules that `--config FILE` would mean here, without the flags of this command line."""
        context = self._context
        given, mistakes = from_text(text, file)
        parsed = parse([*given, *from_environment(context.environ)], context.facts, mistakes)
        environment = PodOf(context.facts, self._own) if self._own else context.facts
        config, _ = resolve(parsed, environment)
        native = parsed.operation().native_nftables
        source = of_settings(config, native, ("--config", file), f"of the settings in {called(file)}")
        return source.replace(proxy=proxy_of(config))

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
        # What only an earlier routing rule makes a martian is taken to come in: so more has to be proved.
        namespace = here.world(known.rules, known.network, ever_routed=False)
    else:
        namespace = World(Program(), known.network)
    return [_subject(each, namespace, _told(each, known)) for each in sources]


def _told(source: Source, known: Source) -> tuple[Cidr, ...]:
    """Return the own addresses that `trace` has to be told, since only the other source has them."""
    if source.network or (known.is_live and not source.rules):
        return ()
    return own_of(known.network)


def _subject(source: Source, namespace: World, own: tuple[Cidr, ...]) -> Subject:
    network = source.network or with_objects(namespace.network, source.objects)
    world = namespace.replace(program=source.program, network=network)
    arguments = source.arguments
    if own:
        arguments = (*arguments, "--own", ",".join(str(cidr).partition("/")[0] for cidr in own))
    return Subject(
        source.title,
        world,
        source.settings,
        arguments,
        source.rules,
        source.is_whole,
        own,
        source.objects,
        as_usual=not (own or source.is_live),
        proxy=source.proxy,
    )


def of_plan(subject: Subject, plan: Plan) -> Subject:
    """Return the rules that the kernel will have once a plan is carried out; `subject` are those it has."""
    world = after(subject.world, plan.actions)
    return subject.replace(title="in the kernel after apply", world=world, can_be_traced=False)


def arguments_of(invocation: Invocation) -> tuple[str, ...]:
    """Return the arguments of a command line that say what the rules are, and where; not how to run."""
    left_out = (HOW_TO_RUN | {""}) - {"native_nftables", "network_namespace"}
    given = [
        *(source for source in invocation.sources if source.setting.name != "yes"),
        *(each for each in invocation.settings if each.setting.field not in left_out),
    ]
    return tuple(f"--{each.setting.name}={each.text}" for each in given)

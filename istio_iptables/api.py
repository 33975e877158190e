"""api: the library. What the command does, it does by these functions.

>>> from istio_iptables import Facts, build, configure, render
>>> config = configure({"istio-inbound-ports": "80,443"}, environment=Facts(ipv4=True))
>>> print(render(build(config)).splitlines()[0])
*nat
"""

from __future__ import annotations

from . import policy
from .config import Config
from .environment import ThisMachine
from .errors import SettingsError
from .formats import as_json, commands, restore
from .plan import execute, make_plan
from .resolve import parse, resolve
from .ruleset import FAMILIES, Ruleset
from .settings import BY_NAME, Given, nearest
from .sources import as_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal, TypeAlias

    from .backends.machine import Choice, Machine
    from .environment import Environment
    from .plan import Live, Plan
    from .pod.lint import Finding
    from .probe import Result
    from .ruleset import Family

    Style: TypeAlias = Literal["restore", "nft", "commands", "json"]

#: What `render` can write.
STYLES = ("restore", "nft", "commands", "json")


def configure(
    settings: Mapping[str, object] | None = None, *, environment: Environment | None = None
) -> Config:
    """Make a Config from settings by their long flag names; what is not given has its default.

    Values are texts as on the command line, or numbers, booleans and lists, and are checked in the
    same way. `environment` are the facts about the machine that the rules are for, by default this
    one. Variables of the process are not read. Raises SettingsError with every mistake.
    """
    facts = environment or ThisMachine()
    given, mistakes = [], []
    for name, value in (settings or {}).items():
        if name not in BY_NAME:
            mistakes.append(f"{name}: unknown setting{nearest(str(name), BY_NAME)}")
            continue
        try:
            given.append(Given(BY_NAME[name], as_text(value), name))
        except ValueError as error:
            mistakes.append(f"{name}: {error}")
    config, _warnings = resolve(parse(given, facts, mistakes), facts)
    return config


def pod_settings(manifest: str, name: str = "") -> dict[str, str]:
    """Return the settings that the manifest of a pod means, for `configure`, by their long flag names.

    `manifest` is YAML or JSON: a pod, a workload with a pod template, a list, or several documents; `name`
    says which pod if there are several (`NAME`, `KIND/NAME` or `NAMESPACE/KIND/NAME`). Values are checked,
    so that what is wrong is told by the name of the annotation. Raises SettingsError with every mistake.

    >>> from istio_iptables import Facts, configure, pod_settings
    >>> manifest = '''
    ... kind: Pod
    ... metadata: {name: web, annotations: {traffic.sidecar.istio.io/includeInboundPorts: "8080"}}
    ... '''
    >>> settings = pod_settings(manifest)
    >>> settings["istio-inbound-ports"], settings["proxy-uid"]
    ('8080', '1337')
    >>> configure(settings, environment=Facts()).inbound_ports
    (PortRange(first=8080, last=8080),)
    """
    from .pod import pick, pods, read

    said = read(pick(pods(manifest, "the manifest"), name, "the manifest"))
    parse(said.given, ThisMachine(), [*said.refusals, *said.mistakes])
    return {given.setting.name: given.text for given in said.given}


def lint_pods(manifest: str) -> list[Finding]:
    """Return what in the manifest of pods does not do what it says, as `istio-iptables pod lint` has it.

    `manifest` is as for `pod_settings`; all pods in it are looked at. `str()` of a Finding is a line, its
    fields are the parts of it. Raises SettingsError if the text is no manifest.

    >>> from istio_iptables import lint_pods
    >>> found = lint_pods('''
    ... kind: Pod
    ... metadata: {name: web, annotations: {traffic.sidecar.istio.io/includeInboundPort: "8080"}}
    ... ''')
    >>> [(finding.kind, finding.remedy) for finding in found]
    [('unknown', 'did you mean traffic.sidecar.istio.io/includeInboundPorts?')]
    """
    from .pod import pods
    from .pod.lint import lint

    facts = ThisMachine()
    return [finding for pod in pods(manifest, "the manifest") for finding in lint(pod, facts)]


def build(config: Config) -> Ruleset:
    """Return the rules that a Config means."""
    return policy.build(config)


def render(
    ruleset: Ruleset,
    style: Style = "restore",
    families: Sequence[Family] = FAMILIES,
    *,
    explain: bool = False,
) -> str:
    """Return a rule set as text.

    `restore`: scripts for iptables-restore --noflush (IPv4) and ip6tables-restore --noflush (IPv6),
    which stand one after the other if both families have rules. `nft`: a script for nft -f with the
    native nftables rules for both. Then come ip(8) commands as comments. `commands`: a shell script. With
    `explain` it, and `nft`, have each rule's reason above it. `json`: for programs.
    """
    if style not in STYLES or not set(families) <= set(FAMILIES):
        raise ValueError(f"no such style or family: {style!r}, {families!r}")
    if style == "json":
        return as_json.text(as_json.document(ruleset, families))
    if style == "commands":
        return commands.script(ruleset, families, explain=explain)
    shown = [family for family in families if family in ruleset.families()]
    text = _nft_script(ruleset, shown, explain) if style == "nft" else _restore_scripts(ruleset, shown)
    return text + "".join(f"# {commands.ip_command(o)}\n" for o in ruleset.network if o.family in families)


def _restore_scripts(ruleset: Ruleset, shown: Sequence[Family]) -> str:
    text = ""
    for family in shown:
        if len(shown) > 1:
            command = "iptables-restore" if family == "ipv4" else "ip6tables-restore"
            text += f"# {family}: for {command} --noflush (render --family {family} prints it alone)\n"
        text += restore.script(ruleset, family)
    return text


def _nft_script(ruleset: Ruleset, shown: Sequence[Family], explain: bool) -> str:
    from .formats import nft
    from .native import translate

    tables = tuple(table for table in ruleset.tables if table.family in shown)
    return nft.script(translate(ruleset.replace(tables=tables)), explain=explain)


def validate(
    config: Config, *, port: int = 15002, seconds: float = 5.0, in_place: bool = False
) -> tuple[Result, ...]:
    """Prove with real connections that redirection works as a Config wants it, in this network namespace.

    As root with the capabilities SETUID and SETGID everything is proven; as the proxy's user what it may. No
    rules are touched. `port` is what is connected to, `seconds` how long all of it may take at most.
    `in_place` says that the rules are known to be those that the Config means: then what is wrong is
    something else's doing. What the
    results come to says `probe.succeeded`. Raises KernelError.
    """
    from .backends.probing import probe_all, situation
    from .probe.planning import plan

    return probe_all(plan(config, policy.build(config), situation(), port), seconds, in_place=in_place)


class Prepared:
    """A plan against a machine, made while its locks are held: look at it, then apply it or not."""

    def __init__(self, machine: Machine, live: Live, wanted: Ruleset, choice: Choice, plan: Plan) -> None:
        self._machine = machine
        self.live = live
        self.wanted = wanted
        self.choice = choice
        self.plan = plan
        self._applied = False

    def settle(self) -> None:
        """Make the choice of the backend final; `apply` does so first.

        Where neither rules nor tables tell which backend to use, this tries the legacy nat table, which
        makes it, and plans anew for nftables if there is none.
        """
        choice = self._machine.settle(self.choice)
        if choice.place != self.choice.place:
            self.plan = make_plan(self.live, self.wanted, choice.place)
        self.choice = choice

    def require_loadable(self) -> None:
        """Raise SettingsError if the backend cannot load a rule of the plan; touches nothing."""
        # What is to be replaced has to be loadable too: it is put back if a later step fails.
        both_ways = [way for action in self.plan.actions for way in (action, action.inverse())]
        refusals = dict.fromkeys(text for way in both_ways if (text := self._machine.refusal(way)))
        if refusals:
            raise SettingsError(
                f"variable ISTIO_OUTBOUND_OWNER_GROUPS: {text} (backend chosen: {self.choice.why}): list "
                "fewer groups, or use libiptc or --native-nftables, which have no such limit"
                for text in refusals
            )

    def apply(self) -> None:
        """Do what the plan says, once.

        Raises SettingsError if the backend cannot load it, before anything is touched, and
        KernelError if the kernel said no, after everything has been put back.
        """
        from .backends.signals import Held

        if self._applied:
            raise RuntimeError("this plan has been applied: prepare another one")
        self.settle()
        self.require_loadable()
        self._applied = True
        for action in self.plan.actions:
            self._machine.check(action)
        with Held() as signals:
            execute(self.plan, self._machine, interrupted=signals.pending)


def prepare(machine: Machine, wanted: Ruleset, *, rewrite: bool = False) -> Prepared:
    """Read what is in place and plan how to make it `wanted`; an empty Ruleset means cleaning up.

    `machine` must have been entered (`with Machine() as machine:`). Raises KernelError.
    """
    live = machine.read(wanted)
    choice = machine.choose(live) if wanted.tables else machine.nothing_to_choose()
    return Prepared(machine, live, wanted, choice, make_plan(live, wanted, choice.place, rewrite=rewrite))

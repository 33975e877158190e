"""api: the library. What the command does, it does by these functions.

>>> from istio_iptables import Facts, build, configure, render
>>> config = configure({"istio-inbound-ports": "80,443"}, environment=Facts(ipv4=True))
>>> print(render(build(config)).splitlines()[0])
*nat
"""

from __future__ import annotations

from . import policy
from .formats import IPTABLES, iptables_restore, shell
from .formats import json as as_json
from .kernel.this_machine import ThisMachine
from .rules import istio
from .rules.model import FAMILIES, Ruleset
from .settings.config import Config
from .settings.declared import BY_NAME, Given, as_text, nearest
from .settings.resolve import parse, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal, TypeAlias

    from .kernel.machine import Machine
    from .kernel.prepared import Prepared
    from .pod.lint import Finding
    from .rules.model import Family
    from .settings.facts import Environment
    from .validation.model import Result

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
    from .pod import pick, pods, read_settings

    said = read_settings(pick(pods(manifest, "the manifest"), name, "the manifest"))
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
        return shell.script(ruleset, families, explain=explain)
    shown = [family for family in families if family in ruleset.families()]
    text = _nft_script(ruleset, shown, explain) if style == "nft" else _restore_scripts(ruleset, shown)
    return text + "".join(f"# {o}\n" for o in ruleset.routing if o.family in families)


def _restore_scripts(ruleset: Ruleset, shown: Sequence[Family]) -> str:
    text = ""
    for family in shown:
        if len(shown) > 1:
            command = f"{IPTABLES[family]}-restore"
            text += f"# {family}: for {command} --noflush (render --family {family} prints it alone)\n"
        text += iptables_restore.script(ruleset, family)
    return text


def _nft_script(ruleset: Ruleset, shown: Sequence[Family], explain: bool) -> str:
    from .formats import nft
    from .rules.nftables.translate import translate

    tables = tuple(table for table in ruleset.tables if table.family in shown)
    return nft.script(translate(ruleset.replace(tables=tables)), explain=explain)


def validate(
    config: Config,
    *,
    port: int = istio.PROBE_PORT,
    seconds: float = istio.PROBE_SECONDS,
    in_place: bool = False,
) -> tuple[Result, ...]:
    """Prove with real connections that redirection works as a Config wants it, in this network namespace.

    As root with the capabilities SETUID and SETGID everything is proven; as the proxy's user what it may. No
    rules are touched. `port` is what is connected to, `seconds` how long all of it may take at most.
    `in_place` says that the rules are known to be those that the Config means: then what is wrong is
    something else's doing. What the
    results come to says `probe.succeeded`. Raises KernelError.
    """
    from .validation.live.probes import probe_all, situation
    from .validation.plan import plan

    return probe_all(plan(config, policy.build(config), situation(), port), seconds, in_place=in_place)


def prepare(machine: Machine, wanted: Ruleset, *, rewrite: bool = False) -> Prepared:
    """Return `machine.plan(wanted)`: read what is in place and plan how to make it `wanted`."""
    return machine.plan(wanted, rewrite=rewrite)

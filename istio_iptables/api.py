"""api: the library. What the command does, it does by these functions.

>>> from istio_iptables import Facts, build, configure, render
>>> config = configure({"istio-inbound-ports": "80,443"}, environment=Facts(ipv4=True))
>>> print(render(build(config)).splitlines()[0])
*nat
"""

from __future__ import annotations

from . import policy
from .errors import SettingsError, SettingsWarning, require_type
from .formats import IPTABLES
from .kernel.this_machine import ThisMachine
from .rules import istio
from .rules.model import FAMILIES, Cidr, PortRange, Ruleset
from .settings.commands import PICTURES, STYLES
from .settings.config import Config, Everything
from .settings.declared import BY_NAME
from .settings.resolve import HOW_TO_RUN, parse, resolve
from .settings.texts import Given, as_text, nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Unpack

    from .kernel.machine import Machine
    from .kernel.prepared import Prepared
    from .pod.lint import Finding
    from .prove.found import Judgement
    from .rules.model import Family
    from .rules.nftables.model import NativeTable
    from .settings.commands import PictureStyle, Style
    from .settings.declared import Setting
    from .settings.environment import Environment
    from .settings.keywords import Settings
    from .status.settings_of import ReadBack
    from .validation.model import Result


def configure(
    settings: Mapping[str, object] | None = None,
    *,
    environment: Environment | None = None,
    **keywords: Unpack[Settings],
) -> Config:
    """Make a Config from settings; what is not given has its default.

    Keywords are typed: the TypedDict Settings has them all. `settings` are by their long flag names, as in a
    --config file. Values are Python's own (numbers, booleans, lists, Cidr, PortRange, networks of `ipaddress`
    or netaddr) or texts as on the command line, and are checked in the same way. `environment` are the facts
    about the machine that the rules are for, by default this one. Variables of the process are not read.

    Settings that have no effect, and the like, are issued as a SettingsWarning, which Python's `warnings`
    shows, filters or makes an error. `configure_with_warnings` returns them instead. Raises SettingsError
    with every mistake.

    >>> from istio_iptables import Facts, configure
    >>> config = configure(inbound_ports=[8080, "9000-9010"], dual_stack=True, environment=Facts(ipv6=True))
    >>> config.inbound_ports
    (PortRange(first=8080, last=8080), PortRange(first=9000, last=9010))
    """
    config, found = configure_with_warnings(settings, environment=environment, **keywords)
    if found:
        import warnings

        for text in found:
            warnings.warn(text, SettingsWarning, stacklevel=2)
    return config


def configure_with_warnings(
    settings: Mapping[str, object] | None = None,
    *,
    environment: Environment | None = None,
    **keywords: Unpack[Settings],
) -> tuple[Config, tuple[str, ...]]:
    """Return what `configure` returns, and the texts of its warnings instead of issuing them.

    >>> from istio_iptables import Facts, configure_with_warnings
    >>> config, warnings = configure_with_warnings(capture_all_dns=True, environment=Facts())
    >>> warnings
    ('--capture-all-dns has no effect without --redirect-dns',)
    """
    if settings is not None and not hasattr(settings, "items"):
        raise TypeError(f"settings are a mapping of long flag names to values, not {type(settings).__name__}")
    facts = ThisMachine() if environment is None else environment
    if not hasattr(facts, "usable_families"):
        raise TypeError(f"environment is a Facts, or has its methods, not {type(environment).__name__}")
    given, mistakes = _given(dict(settings or {}), {**keywords})
    return resolve(parse(given, facts, mistakes), facts)


def _given(by_flag: Mapping[str, object], by_keyword: Mapping[str, object]) -> tuple[list[Given], list[str]]:
    """Return what was given as texts, and what is wrong with names and types."""
    given, mistakes = [], []
    fields = {setting.field: setting for setting in BY_NAME.values() if setting.field}
    found: list[tuple[str, object, Setting]] = []
    for name, value in by_flag.items():
        if name in BY_NAME:
            found.append((name, value, BY_NAME[name]))
        else:
            mistakes.append(f"{name}: unknown setting{nearest(str(name), BY_NAME)}")
    for name, value in by_keyword.items():
        if name not in fields:
            mistakes.append(f"{name}: unknown setting{_nearest_keyword(name, fields)}")
        elif name in HOW_TO_RUN:
            mistakes.append(f"{name}: for the command alone: it says how to run, and not which rules to make")
        elif fields[name].name in by_flag:
            mistakes.append(f"{name}: given twice, as {fields[name].name} too: leave one out")
        elif value is None:
            mistakes.append(f"{name}: None cannot be used: leave it out for the default, or use () for none")
        else:
            found.append((name, value, fields[name]))
    for name, value, setting in found:
        try:
            given.append(Given(setting, as_text(_plain(value)), name))
        except ValueError as error:
            mistakes.append(f"{name}: {error}")
    return given, mistakes


def _nearest_keyword(name: str, fields: Mapping[str, Setting]) -> str:
    """Return a hint; a flag's name with underscores counts as its keyword's."""
    for setting in fields.values():
        if setting.name.replace("-", "_").lower() == name.lower():
            return f" (did you mean {setting.field}?)"
    return nearest(name, fields.keys() - HOW_TO_RUN)


def _plain(value: object) -> object:
    """Return a value with ports and networks, of this package, ipaddress or netaddr, as texts."""
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, Everything):
        return "*"
    if isinstance(value, PortRange) or getattr(value, "version", None) in (4, 6):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(member) for member in value]
    raise ValueError(
        "a value must be a string, a number, true, false, a PortRange, a CIDR or a list of these, "
        f"not {type(value).__name__}"
    )


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
    require_type(manifest, str, "pod_settings() takes the text of a manifest")
    from .pod import read_settings
    from .pod.manifest import pick, pods

    reading = read_settings(pick(pods(manifest, "the manifest"), name, "the manifest"))
    mode = parse(reading.given, ThisMachine(), [*reading.refusals, *reading.mistakes]).no_capture
    if mode:
        raise SettingsError([f"{mode.origin}: {mode.text!r} captures nothing: no settings mean that"])
    return {given.setting.name: given.text for given in reading.given}


def lint_pods(manifest: str) -> list[Finding]:
    """Return the settings of a manifest that do not do what they say, as `istio-iptables pod lint` does.

    `manifest` is as for `pod_settings`; every pod in it is checked. `str()` of a Finding is one line, its
    fields are the parts of that line. Raises SettingsError if the text is not a manifest.

    >>> from istio_iptables import lint_pods
    >>> found = lint_pods('''
    ... kind: Pod
    ... metadata: {name: web, annotations: {traffic.sidecar.istio.io/includeInboundPort: "8080"}}
    ... ''')
    >>> [(finding.kind, finding.remedy) for finding in found]
    [('unknown', 'did you mean traffic.sidecar.istio.io/includeInboundPorts?')]
    """
    require_type(manifest, str, "lint_pods() takes the text of a manifest")
    from .pod.lint import lint
    from .pod.manifest import pods

    facts = ThisMachine()
    return [finding for pod in pods(manifest, "the manifest") for finding in lint(pod, facts)]


def build(config: Config) -> Ruleset:
    """Return the rules that a Config means."""
    require_type(config, Config, "build() takes a Config (see configure)")
    return policy.build(config)


def render(
    ruleset: Ruleset,
    style: Style = "restore",
    families: Sequence[Family] = FAMILIES,
    *,
    explain: bool = False,
) -> str:
    """Return a rule set as text.

    `restore`: a script for iptables-restore --noflush (IPv4), then one for ip6tables-restore --noflush (IPv6)
    if both families have rules. `nft`: a script for nft -f with the native nftables rules for both. Both
    styles end with ip(8) commands as comments. `commands`: a shell script. With `explain` these three have
    each rule's reason above it, as a comment. `json`, for programs, always has it.
    """
    require_type(ruleset, Ruleset, "render() takes a Ruleset (see build)")
    if style not in STYLES:
        raise ValueError(f"style is {style!r}: it has to be one of {', '.join(STYLES)}")
    if isinstance(families, str) or any(family not in FAMILIES for family in families):
        raise ValueError(f"families is {families!r}: it has to be a list of {' and '.join(FAMILIES)}")
    if style == "json":
        from .formats import json as as_json

        return as_json.text(as_json.document(ruleset, families))
    if style == "commands":
        from .formats import shell

        return shell.script(ruleset, families, explain=explain)
    shown = [family for family in families if family in ruleset.families()]
    text = (_nft_script if style == "nft" else _restore_scripts)(ruleset, shown, explain)
    return text + "".join(f"# {o}\n" for o in ruleset.routing if o.family in families)


def _restore_scripts(ruleset: Ruleset, shown: Sequence[Family], explain: bool) -> str:
    from .formats import iptables_restore

    text = ""
    for family in shown:
        if len(shown) > 1:
            command = f"{IPTABLES[family]}-restore"
            text += f"# {family}: for {command} --noflush (render --family {family} prints it alone)\n"
        text += iptables_restore.script(ruleset, family, explain=explain)
    return text


def _nft_script(ruleset: Ruleset, shown: Sequence[Family], explain: bool) -> str:
    from .formats import nft
    from .rules.nftables.translate import translate

    tables = tuple(table for table in ruleset.tables if table.family in shown)
    return nft.script(translate(ruleset.replace(tables=tables)), explain=explain)


def picture(
    config: Config,
    style: PictureStyle = "svg",
    *,
    native: bool = False,
    trace: str = "",
    own: Sequence[str] = (),
) -> str:
    """Return a picture of the way of packets through the rules that a Config means.

    `svg` is laid out to be printed, `mermaid` and `dot` are for the programs of that name. `native`: with the
    rules of native nftables. `trace` lights up the way of one packet, described by `out` or `in` and the
    options of the command `trace`; with `--follow` the way through the proxy, too. `own` are addresses of the
    pod, by default addresses for documentation. Raises SettingsError if the packet cannot be understood.

    >>> from istio_iptables import Facts, configure, picture
    >>> config = configure(environment=Facts())
    >>> drawn = picture(config, "mermaid", trace="out --uid 1000 --to 203.0.113.10:80 --follow")
    >>> drawn.splitlines()[3]
    'flowchart TB'
    """
    require_type(config, Config, "picture() takes a Config (see configure)")
    if style not in PICTURES:
        raise ValueError(f"style is {style!r}: it has to be one of {', '.join(PICTURES)}")
    from .pictures.draw import drawn
    from .pictures.subject import of_config

    return drawn(of_config(config, native=native, own=_addresses(own)), style, trace, ThisMachine(), config)


def report(config: Config, *, native: bool = False, own: Sequence[str] = ()) -> str:
    """Return the page that `istio-iptables report` writes: HTML that needs nothing from elsewhere.

    >>> from istio_iptables import Facts, configure, report
    >>> report(configure(environment=Facts())).splitlines()[0]
    '<!DOCTYPE html>'
    """
    require_type(config, Config, "report() takes a Config (see configure)")
    from .pictures.report import page
    from .pictures.subject import of_config

    return page(of_config(config, native=native, own=_addresses(own)), config)


def _addresses(texts: Sequence[str]) -> tuple[Cidr, ...]:
    if isinstance(texts, str):
        raise TypeError("own is a list of addresses, not a text")
    return tuple(Cidr.from_ipaddress(text) for text in texts)


def validate(
    config: Config,
    *,
    port: int = istio.PROBE_PORT,
    seconds: float = istio.PROBE_SECONDS,
    in_place: bool = False,
) -> tuple[Result, ...]:
    """Prove with real connections that redirection works as a Config wants it, in this network namespace.

    Root with the capabilities SETUID and SETGID tests everything, the proxy's user only what it may. No rules
    are changed. `port` is the port that the probes connect to, `seconds` the longest time for all of them.
    With `in_place` the rules are known to be those of the Config, and a result that is wrong is put down to
    another cause. `succeeded` tells whether the results prove redirection. Raises KernelError.
    """
    require_type(config, Config, "validate() takes a Config (see configure)")
    from .validation.live.probes import probe_all, situation
    from .validation.plan import plan

    return probe_all(plan(config, policy.build(config), situation(), port), seconds, in_place=in_place)


def prove_rules(
    config: Config, ruleset: Ruleset | None = None, *, native: bool = False, own: Sequence[str] = ()
) -> Judgement:
    """Prove that rules do what a Config promises, for all packets at once, as `istio-iptables prove` does.

    The rules are those that the Config means, or `ruleset`; with `native` in the form of native nftables.
    Nothing of this machine counts: the pod has the addresses `own`, by default addresses for documentation.
    `is_proved` of the result tells whether every property is proved; its refutations are packets.

    >>> from istio_iptables import Facts, build, configure, prove_rules
    >>> config = configure(environment=Facts())
    >>> prove_rules(config).is_proved
    True
    >>> other = build(configure(outbound_cidrs_excluded="10.9.0.0/16", environment=Facts()))
    >>> found = prove_rules(config, other).refutations[0]
    >>> str(found.wanted), str(found.found), found.refutes
    ('redirected 15001', 'direct', ('outbound-captured', 'every-packet'))
    """
    require_type(config, Config, "prove_rules() takes a Config (see configure)")
    rules = policy.build(config) if ruleset is None else ruleset
    require_type(rules, Ruleset, "prove_rules() takes a Ruleset (see build) as its second argument")
    from .prove.found import judgement
    from .prove.subject import of_rules
    from .prove.ways import judged
    from .trace.world import examples

    subject = of_rules(rules, _addresses(own) or examples(FAMILIES), native=native)
    return judgement(subject, judged(config, subject.world), config)


def settings_of(ruleset: Ruleset, native: Sequence[NativeTable] = ()) -> ReadBack | None:
    """Return the settings that rules mean, None if none of the rules is owned by istio-iptables.

    `ruleset` has rules of iptables as they were made or read, `Ruleset(live.tables[location], live.routing)`;
    rules of other programs among them do not count. With `native` the rules are these native tables, and only
    the addresses and routes of `ruleset` count. If no settings mean exactly these rules, `exact` is False,
    and the settings are those whose rules differ in the fewest.

    >>> from istio_iptables import Facts, build, configure, settings_of
    >>> rules = build(configure(inbound_ports="80,443", environment=Facts()))
    >>> found = settings_of(rules)
    >>> found.arguments
    ['--istio-inbound-ports=80,443', '--proxy-uid=1337']
    >>> build(configure(found.settings, environment=found.facts)) == rules
    True
    """
    require_type(ruleset, Ruleset, "settings_of() takes a Ruleset")
    from .status import settings_of as status

    return status.settings_of(ruleset, native)


def prepare(machine: Machine, wanted: Ruleset, *, rewrite: bool = False) -> Prepared:
    """Return `machine.plan(wanted)`: read what is in place and plan how to make it `wanted`."""
    if not hasattr(machine, "plan"):
        raise TypeError(f"prepare() takes a Machine and a Ruleset, not {type(machine).__name__}")
    return machine.plan(wanted, rewrite=rewrite)

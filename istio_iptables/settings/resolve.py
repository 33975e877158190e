"""resolve: from the settings given to a Config and an Operation, or all mistakes at once.

`parse` needs only the text of the settings, so it runs before any fact about the machine is read. `resolve`
then decides what depends on the machine.
"""

from __future__ import annotations

from ..errors import SettingsError
from ..rules.istio import PROXY_ID
from ..startup.record import Record
from .config import NO_INTERCEPTION, Config, Everything
from .declared import SETTINGS
from .no_effect import NO_EFFECT
from .parsers import BadValue, host_cidr
from .texts import Given, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from ..rules.model import Cidr
    from . import parsers
    from .environment import Environment


#: Warnings about what the machine has, which `doctor` gives too.
NO_ADDRESS = "this network namespace has no address but loopback and link-local ones: only IPv4 is captured"
IPV6_NOT_CAPTURED = "there is an IPv6 address, but IPv6 traffic is not captured: --dual-stack captures it"
NO_DNS_SERVER = (
    "--redirect-dns captures nothing: /etc/resolv.conf names no server (--capture-all-dns needs none)"
)


def is_of_the_machine(warning: str) -> bool:
    """Tell whether a warning of `resolve` is about what the machine has, not about the settings."""
    known = (NO_ADDRESS, IPV6_NOT_CAPTURED, NO_DNS_SERVER)
    return warning in known or warning.startswith("/etc/resolv.conf: ")


class Operation(Record):
    """How to run, as opposed to which rules to make."""

    dry_run: bool
    dry_run_file: str
    reconcile: bool
    cleanup_only: bool
    force_apply: bool
    skip_rule_apply: bool
    prove: bool
    run_validation: bool
    probe_port: int
    probe_timeout: float
    network_namespace: str
    cni_mode: bool
    forced_variant: str
    native_nftables: bool
    log_levels: tuple[tuple[str, str], ...]
    log_as_json: bool


#: Settings of the command that a Config does not depend on; Machine, and what a program does, are for these.
HOW_TO_RUN = frozenset(Operation._fields) - {"native_nftables"}


class Parsed(Record):
    """The value of every setting by field name, and the settings that differ from their defaults.

    `warnings` are about settings that were given and are ignored.
    """

    values: Mapping[str, Any]
    changed: tuple[Given, ...]
    warnings: tuple[str, ...] = ()

    @property
    def no_capture(self) -> Given | None:
        """The interception mode of a pod if it is NONE and no setting takes precedence: no rules then."""
        if self.values["interception_mode"] != NO_INTERCEPTION:
            return None
        return next(item for item in self.changed if item.setting.field == "interception_mode")

    def operation(self) -> Operation:
        """Return the settings about how to run."""
        return Operation(**{name: self.values[name] for name in Operation._fields})


def from_environment(environ: Mapping[str, str]) -> list[Given]:
    """Return the settings that variables set, the strongest last.

    Pod specs have `value: ""` for a variable that is not set. So an empty one is set only if the setting is a
    list, of which empty is a value. A variable of what is ignored is ignored whatever its text: it may be
    meant for another program.
    """
    return [
        Given(setting, setting.default if setting.ignored else environ[variable], f"variable {variable}")
        for setting in SETTINGS
        for variable in (setting.variable, *reversed(setting.aliases))
        if variable in environ
        and (environ[variable] or setting.is_list)
        and not _is_service_link(variable, environ[variable])
    ]


def _is_service_link(variable: str, text: str) -> bool:
    """Tell whether Kubernetes set a variable for a Service: ENVOY_PORT=tcp://10.0.0.1:80 for one named envoy.

    It does so in every container of the Service's namespace (enableServiceLinks). So the variable is not
    intended as a setting, and a pod must not fail because of it.
    """
    return variable.endswith("_PORT") and text.startswith(("tcp://", "udp://", "sctp://"))


def service_links(environ: Mapping[str, str]) -> list[str]:
    """Return a warning for each variable of a setting that Kubernetes has set for a Service."""
    return [
        f"variable {name} = {quoted(environ[name])} was set by Kubernetes for a Service: ignored"
        for name in (setting.variable for setting in SETTINGS)
        if _is_service_link(name, environ.get(name, ""))
    ]


def parse(given: Sequence[Given], names: parsers.Names, mistakes: Iterable[str] = ()) -> Parsed:
    """Parse all settings given, the strongest last, and return all values.

    A value that cannot be parsed is a mistake even if a stronger source overrides it.
    Raises SettingsError with `mistakes` and all that are found here.
    """
    problems = list(mistakes)
    parsed: dict[str, Any] = {}
    strongest: dict[str, Given] = {}
    for setting in SETTINGS:
        if setting.field:
            parsed[setting.field] = setting.parse(setting.default, names)
    for item in given:
        try:
            value = item.setting.parse(item.text, names)
        except BadValue as bad:
            problems += [f"{item.origin}: {problem}" for problem in bad.problems]
            continue
        strongest[item.setting.name] = item
        if item.setting.field:
            parsed[item.setting.field] = value
    problems += _names_that_nft_cannot_write(parsed, strongest)
    if problems:
        raise SettingsError(problems)
    found = [strongest[setting.name] for setting in SETTINGS if setting.name in strongest]
    return Parsed(
        parsed,
        tuple(item for item in found if item.text != item.setting.default and not item.setting.ignored),
        tuple(f"{item.origin}: {item.setting.ignored}" for item in found if item.setting.ignored),
    )


def _names_that_nft_cannot_write(parsed: Mapping[str, Any], strongest: Mapping[str, Given]) -> list[str]:
    """Return a mistake for each interface with a double quote or a backslash, which nft(8) cannot write."""
    if not parsed["native_nftables"]:
        return []
    return [
        f"{strongest[setting.name].origin}: {quoted(name)} cannot be written with --native-nftables: "
        "nft accepts no double quote or backslash in a name; iptables does"
        for setting in SETTINGS
        if setting.field in ("interfaces_excluded", "rerouted_interfaces")
        for name in parsed[setting.field]
        if '"' in name or "\\" in name
    ]


def parse_options(
    command: str, given: Sequence[Given], names: parsers.Names
) -> tuple[dict[str, Any], list[str]]:
    """Parse the options of a command. Return all values by name, and the mistakes."""
    from .commands import COMMAND_BY_NAME  # the CNI plugin has no command line

    if command not in COMMAND_BY_NAME:
        return {}, []
    parsed: dict[str, Any] = {
        o.name: () if o.repeats else o.parse(o.default, names) for o in COMMAND_BY_NAME[command].options
    }
    mistakes: list[str] = []
    for item in given:
        name = item.setting.name
        try:
            value = item.setting.parse(item.text, names)
            parsed[name] = (*parsed[name], value) if item.setting.repeats else value
        except BadValue as bad:
            mistakes += [f"{item.origin}: {problem}" for problem in bad.problems]
    return parsed, mistakes


def resolve(parsed: Parsed, environment: Environment) -> tuple[Config, tuple[str, ...]]:
    """Decide what depends on the machine. Return the Config, and warnings for the operator."""
    chosen = dict(parsed.values)
    warnings = list(parsed.warnings)
    chosen["proxy_uids"] = chosen["proxy_uids"] or _default_proxy_users(chosen, environment)
    chosen["proxy_gids"] = chosen["proxy_gids"] or chosen["proxy_uids"]
    chosen["ipv6"] = _ipv6(chosen["dual_stack"], environment, warnings)
    chosen["dns_servers"] = _dns_servers(chosen, environment, warnings)
    if not (chosen["capture_all_dns"] or chosen["dns_servers"]):
        chosen["redirect_dns"] = False  # there is nothing to send to the agent
    cidrs = chosen["outbound_cidrs"]
    chosen["outbound_cidrs_name_loopback"] = False
    if not isinstance(cidrs, Everything):
        chosen["outbound_cidrs_name_loopback"] = any(n.names_loopback for n in cidrs)
        chosen["outbound_cidrs"] = tuple(n.as_cidr() for n in cidrs)
    warnings += [row.warning for row in NO_EFFECT if row.applies(chosen)]
    if chosen["native_nftables"]:
        chosen["compact"] = False
    return Config(**{name: chosen[name] for name in Config._fields}), tuple(warnings)


def _default_proxy_users(chosen: Mapping[str, Any], environment: Environment) -> tuple[int, ...]:
    found = environment.user_id(chosen["proxy_user"])
    return (PROXY_ID,) if found is None else (found,)


def _ipv6(dual_stack: bool, environment: Environment, warnings: list[str]) -> bool:
    """Decide whether IPv6 is on, as Istio does."""
    ipv4, ipv6 = environment.usable_families()
    if not ipv4 and not ipv6:
        warnings.append(NO_ADDRESS)
    if ipv4 and ipv6 and not dual_stack:
        warnings.append(IPV6_NOT_CAPTURED)
    return ipv6 and (dual_stack or not ipv4)


def _dns_servers(
    chosen: Mapping[str, Any], environment: Environment, warnings: list[str]
) -> tuple[Cidr, ...]:
    if not chosen["redirect_dns"] or chosen["capture_all_dns"]:
        return ()
    servers = []
    for text in environment.dns_servers():
        server = host_cidr(text)
        if server is None:
            warnings.append(f"/etc/resolv.conf: {quoted(text)} is not an address: ignored")
        else:
            servers.append(server)
    if not servers:
        warnings.append(NO_DNS_SERVER)
    return tuple(servers)

"""declared: every setting, declared once. The command line, variables, files, help and docs read this table.

A Setting says what a user may write (flag, short option, variables, default, parser, help) and which field
of Config or Operation it becomes. Commands are declared in commands.py. cli/collect.py collects what was
given (texts.py), and resolve.py turns it into values.
"""

from __future__ import annotations

from ..rules import istio
from ..startup.record import Record
from . import parsers
from .ignored import IGNORED, Ignored

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Literal, TypeAlias

    Group: TypeAlias = Literal[
        "Inbound", "Outbound", "Proxy", "DNS", "TPROXY", "Operation", "Logging", "Ignored"
    ]

# Variables that messages, pods and lint name too.
DNS_CAPTURE = "ISTIO_META_DNS_CAPTURE"
DUAL_STACK = "ISTIO_DUAL_STACK"
INVALID_DROP = "INVALID_DROP"
OWNER_GROUPS = "ISTIO_OUTBOUND_OWNER_GROUPS"
OWNER_GROUPS_EXCLUDED = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"
#: The variants of iptables, as --force-iptables-binary names them.
VARIANTS = LEGACY, NFT = "legacy", "nft"


class Setting(Record):
    """One setting.

    `name` is the long name of the flag without dashes, or the name of the variable if there is no flag.
    `default` is a text, read by the same parser as a user's. `aliases` are variables that take precedence
    over the setting's own. `field` is the field that it becomes; a setting without one is accepted and has
    no effect. If that deserves a warning, `ignored` is its text after the flag, variable or key. An option
    that `repeats` has a tuple of values, one for each time that it is given.
    """

    name: str
    help: str
    group: Group
    parse: Callable[[str, parsers.Names], object]
    default: str = ""
    short: str = ""
    metavar: str = "TEXT"
    aliases: tuple[str, ...] = ()
    field: str = ""
    has_flag: bool = True
    ignored: str = ""
    repeats: bool = False

    @property
    def variable(self) -> str:
        """The environment variable of the setting."""
        return self.name.upper().replace("-", "_")

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables of the setting, the strongest first."""
        return (*self.aliases, self.variable)

    @property
    def values(self) -> tuple[str, ...]:
        """All values that it may have, for completion; empty unless they can be listed."""
        return getattr(self.parse, "choices", ())

    @property
    def is_boolean(self) -> bool:
        """True if the flag needs no value."""
        return self.parse is parsers.boolean

    @property
    def is_list(self) -> bool:
        """True if the empty text is a value, an empty list: only then is an empty variable set."""
        return self.parse in parsers.LISTS

    @property
    def flag(self) -> str:
        """The setting's name in messages: its flag, or its variable if there is no flag."""
        return f"--{self.name}" if self.has_flag else self.name


def _switch(name: str, help: str, group: Group = "Operation", **more: Any) -> Setting:
    return Setting(name, help, group, parsers.boolean, "false", metavar="BOOL", **more)


def _without_effect(row: Ignored) -> Setting:
    more: Any = {"short": row.short, "has_flag": row.has_flag, "ignored": row.warning}
    what = "Accepted with a warning."
    if row.is_boolean:
        return _switch(row.name, what, "Ignored", **more)
    return Setting(row.name, what, "Ignored", parsers.anything, **more)


SETTINGS: tuple[Setting, ...] = (
    # --- inbound
    Setting(
        "istio-inbound-ports",
        "Inbound ports to send to the proxy: a list (ranges as in 8000-8100), `*` for all, empty for none.",
        "Inbound",
        parsers.ports_or_all,
        "*",
        "b",
        "PORTS",
        field="inbound_ports",
    ),
    Setting(
        "istio-local-exclude-ports",
        "Inbound ports that are not captured; used only when all inbound ports are captured.",
        "Inbound",
        parsers.ports,
        "",
        "d",
        "PORTS",
        field="inbound_ports_excluded",
    ),
    Setting(
        "inbound-capture-port",
        "Port of the proxy that inbound TCP is sent to.",
        "Inbound",
        parsers.port,
        str(istio.INBOUND_PORT),
        "z",
        "PORT",
        field="inbound_port",
    ),
    Setting(
        "inbound-tunnel-port",
        "Port of the proxy for HBONE tunnels, never redirected.",
        "Inbound",
        parsers.port,
        str(istio.TUNNEL_PORT),
        "e",
        "PORT",
        field="tunnel_port",
    ),
    Setting(
        "istio-inbound-interception-mode",
        "How inbound TCP is captured: REDIRECT rewrites the destination, TPROXY keeps all addresses.",
        "Inbound",
        parsers.one_of("REDIRECT", "TPROXY", empty="REDIRECT"),
        "REDIRECT",
        "m",
        "MODE",
        field="interception_mode",
    ),
    _switch(
        "drop-invalid",
        "Drop packets in conntrack state INVALID, which would otherwise reset connections.",
        "Inbound",
        aliases=(INVALID_DROP,),
        field="drop_invalid",
    ),
    # --- outbound
    Setting(
        "envoy-port",
        "Port of the proxy that outbound TCP is sent to.",
        "Outbound",
        parsers.port,
        str(istio.OUTBOUND_PORT),
        "p",
        "PORT",
        field="outbound_port",
    ),
    Setting(
        "istio-service-cidr",
        "Destinations to send to the proxy: a list of CIDRs, `*` for all, empty for none.",
        "Outbound",
        parsers.cidrs_or_all,
        "*",
        "i",
        "CIDRS",
        field="outbound_cidrs",
    ),
    Setting(
        "istio-service-exclude-cidr",
        "Destinations that are never captured: a list of CIDRs.",
        "Outbound",
        parsers.cidrs,
        "",
        "x",
        "CIDRS",
        field="outbound_cidrs_excluded",
    ),
    Setting(
        "istio-outbound-ports",
        "Outbound ports that are captured whatever the destination.",
        "Outbound",
        parsers.ports,
        "",
        "q",
        "PORTS",
        field="outbound_ports",
    ),
    Setting(
        "istio-local-outbound-ports-exclude",
        "Outbound ports that are never captured, TCP and UDP.",
        "Outbound",
        parsers.ports,
        "",
        "o",
        "PORTS",
        field="outbound_ports_excluded",
    ),
    Setting(
        "istio-exclude-interfaces",
        "Interfaces whose traffic is not captured, inbound or outbound; a trailing `+` is a wildcard.",
        "Outbound",
        parsers.interfaces,
        "",
        "c",
        "INTERFACES",
        field="interfaces_excluded",
    ),
    Setting(
        "kube-virt-interfaces",
        "Interfaces of virtual machines in the pod: traffic that comes from them is treated as outbound.",
        "Outbound",
        parsers.interfaces,
        "",
        "k",
        "INTERFACES",
        field="rerouted_interfaces",
    ),
    Setting(
        OWNER_GROUPS,
        f"Groups (name or GID, at most {parsers.MOST_OWNER_GROUPS}) whose outbound traffic is captured, "
        "`*` for all.",
        "Outbound",
        parsers.captured_groups,
        "*",
        metavar="GROUPS",
        field="owner_groups",
        has_flag=False,
    ),
    Setting(
        OWNER_GROUPS_EXCLUDED,
        f"Groups (name or GID, at most {parsers.MOST_OWNER_GROUPS}) whose outbound traffic is not captured; "
        "used only when all groups are captured.",
        "Outbound",
        parsers.excluded_groups,
        "",
        metavar="GROUPS",
        field="owner_groups_excluded",
        has_flag=False,
    ),
    Setting(
        "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
        "IPv4 loopback CIDR, within 127.0.0.0/8, whose traffic stays local.",
        "Outbound",
        parsers.ipv4_loopback,
        "127.0.0.1/32",
        metavar="CIDR",
        field="ipv4_loopback",
        has_flag=False,
    ),
    # --- proxy
    Setting(
        "proxy-uid",
        "Users (name or UID) that the proxy runs as, whose traffic is not captured; "
        f"by default the user that ENVOY_USER names, or {istio.PROXY_ID} if there is none.",
        "Proxy",
        parsers.users,
        "",
        "u",
        "USERS",
        field="proxy_uids",
    ),
    Setting(
        "proxy-gid",
        "Groups (name or GID) that the proxy runs as; by default the same numbers as --proxy-uid.",
        "Proxy",
        parsers.groups,
        "",
        "g",
        "GROUPS",
        field="proxy_gids",
    ),
    Setting(
        "ENVOY_USER",
        "User that the proxy runs as when --proxy-uid is not given.",
        "Proxy",
        parsers.anything,
        "istio-proxy",
        metavar="USER",
        field="proxy_user",
        has_flag=False,
    ),
    _switch(
        "dual-stack",
        "Capture both IPv4 and IPv6.",
        "Proxy",
        aliases=(DUAL_STACK,),
        field="dual_stack",
    ),
    # --- DNS
    _switch(
        "redirect-dns",
        f"Send the application's DNS queries to the agent on port {istio.DNS_AGENT_PORT}.",
        "DNS",
        aliases=(DNS_CAPTURE,),
        field="redirect_dns",
    ),
    _switch(
        "capture-all-dns",
        f"With --redirect-dns: capture all queries to port {istio.DNS_PORT}, not only those to servers in "
        "/etc/resolv.conf.",
        "DNS",
        field="capture_all_dns",
    ),
    _switch(
        "dns-single-zone",
        "With --redirect-dns: a conntrack zone only for the application's DNS, so that containers behind "
        "docker0, and an agent that asks docker's DNS server, get their answers.",
        "DNS",
        field="dns_single_zone",
    ),
    # --- TPROXY
    Setting(
        "istio-inbound-tproxy-mark",
        "Packet mark that TPROXY uses.",
        "TPROXY",
        parsers.mark,
        str(istio.TPROXY_MARK),
        "t",
        "MARK",
        field="tproxy_mark",
    ),
    Setting(
        "istio-inbound-tproxy-route-table",
        "Routing table for marked packets.",
        "TPROXY",
        parsers.route_table,
        str(istio.TPROXY_ROUTE_TABLE),
        "r",
        "TABLE",
        field="tproxy_route_table",
    ),
    # --- operation
    _switch("dry-run", "Print what would be done; change nothing.", short="n", field="dry_run"),
    Setting(
        "DRY_RUN_FILE_PATH",
        "File that --dry-run also writes the script to.",
        "Operation",
        parsers.anything,
        metavar="FILE",
        field="dry_run_file",
        has_flag=False,
    ),
    _switch(
        "reconcile",
        f"Replace rules of {istio.PROGRAM} that are in place but differ, instead of failing.",
        field="reconcile",
    ),
    _switch(
        "cleanup-only",
        f"Remove everything that {istio.PROGRAM} has set up, and do nothing else.",
        field="cleanup_only",
    ),
    _switch("force-apply", "Write the rules even if they are in place already.", field="force_apply"),
    _switch("skip-rule-apply", "Do not touch any rules.", field="skip_rule_apply"),
    _switch(
        "prove",
        "Before rules are written, prove that they do what the settings promise, for all packets and beside "
        "rules of other programs; refuse what is refuted.",
        field="prove",
    ),
    _switch(
        "run-validation",
        "After applying, prove with real connections that redirection works (like `validate`).",
        field="run_validation",
    ),
    Setting(
        "iptables-probe-port",
        "Port that the validation connects to.",
        "Operation",
        parsers.port,
        str(istio.PROBE_PORT),
        metavar="PORT",
        field="probe_port",
    ),
    Setting(
        "probe-timeout",
        "Longest time that the validation may take, as a Go duration such as 5s.",
        "Operation",
        parsers.duration,
        f"{istio.PROBE_SECONDS}s",
        metavar="DURATION",
        field="probe_timeout",
    ),
    Setting(
        "network-namespace",
        "Network namespace to work in: a path, or a name known to `ip netns`.",
        "Operation",
        parsers.anything,
        metavar="NAMESPACE",
        field="network_namespace",
    ),
    _switch(
        "cni-mode",
        "Lock the network namespace instead of the machine's iptables lock file.",
        field="cni_mode",
    ),
    Setting(
        "force-iptables-binary",
        "Use this variant of iptables, legacy or nft, whatever rules are in place.",
        "Operation",
        parsers.one_of(*VARIANTS, "", empty=""),
        metavar="VARIANT",
        field="forced_variant",
    ),
    _switch(
        "native-nftables",
        "Write nftables rules (tables inet istio-proxy-*) instead of iptables rules.",
        field="native_nftables",
    ),
    _switch(
        "compact",
        "Fewer iptables rules for long lists, with the same verdicts: multiport rules, merged CIDRs.",
        field="compact",
    ),
    _switch("rule-comments", "Give every rule a comment that says why it is there.", field="rule_comments"),
    # --- logging
    Setting(
        "log_output_level",
        f"What to log, as [scope:]level[,...]: {parsers.ANY_LOG_LEVEL}.",
        "Logging",
        parsers.log_levels,
        f"{parsers.LOG_SCOPE}:{parsers.DEFAULT_LOG_LEVEL}",
        metavar="LEVELS",
        field="log_levels",
    ),
    _switch("log_as_json", "Log one JSON object per line.", "Logging", field="log_as_json"),
    Setting(
        "log_target",
        "Accepted for compatibility with Istio; log lines go to standard error.",
        "Logging",
        parsers.anything,
    ),
    Setting("log_caller", "Accepted for compatibility with Istio; ignored.", "Logging", parsers.anything),
    Setting(
        "log_stacktrace_level", "Accepted for compatibility with Istio; ignored.", "Logging", parsers.anything
    ),
    # --- without effect
    *map(_without_effect, IGNORED),
)

BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in SETTINGS}
#: By the names of the setting's variable and of its aliases.
BY_VARIABLE: Mapping[str, Setting] = {v: s for s in SETTINGS for v in (s.variable, *s.aliases)}
BY_SHORT: Mapping[str, Setting] = {setting.short: setting for setting in SETTINGS if setting.short}


def option(name: str, help: str, parse: Callable[[str, parsers.Names], object], **more: Any) -> Setting:
    """Make an option: like a setting, but without a variable, and not allowed in files."""
    return Setting(name, help, "Operation", parse, **more)


#: Options that name other sources of settings than flags and variables, and the answer to a question, which
#: has no variable either: YES may be set for any program.
SOURCES: tuple[Setting, ...] = (
    option(
        "config",
        "YAML or JSON file: a mapping of long flag names to values.",
        parsers.anything,
        metavar="FILE",
    ),
    option(
        "pod",
        "Manifest of a pod or a workload, YAML or JSON: settings come from its annotations and containers. "
        "`-` is standard input. A --config file takes precedence over it.",
        parsers.anything,
        metavar="FILE",
    ),
    option(
        "pod-name",
        "The pod to use if the manifest has several: NAME, KIND/NAME or NAMESPACE/KIND/NAME.",
        parsers.anything,
        metavar="NAME",
    ),
    option(
        "yes",
        "Apply without asking: on a terminal, outside containers, the rules of a machine's own network are "
        "applied only after a question.",
        parsers.boolean,
        default="false",
        metavar="BOOL",
    ),
)
SOURCE_BY_NAME: Mapping[str, Setting] = {source.name: source for source in SOURCES}

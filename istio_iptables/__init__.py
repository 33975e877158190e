"""istio-iptables: write, read and explain the redirection rules of an Istio sidecar.

`configure` checks settings and makes a Config, `build` makes the Ruleset that it means, `render` writes it
as text. Machine is the kernel; `machine.plan` compares it with a Ruleset, and the plan is applied:

    from istio_iptables import Machine, build, configure

    wanted = build(configure(inbound_ports="*", dual_stack=True))
    with Machine() as machine:
        prepared = machine.plan(wanted)
        for difference in prepared.differences:
            print(difference.title)
        prepared.apply()

What is here:

    configure, configure_with_warnings     settings to a Config, without and with its warnings as data
    pod_settings, lint_pods                settings of a pod's manifest; what in it has no effect
    build, render                          a Config to a Ruleset; a Ruleset to text
    picture, report                        a Config to a picture of the packets' way; to a page for a browser
    Machine, prepare                       the kernel, and what has to change there
    settings_of                            the settings that rules in place mean
    prove_rules                            whether rules do what settings promise, for all packets at once
    validate, succeeded                    real connections that prove that redirection works
    network_namespace                      run functions in another network namespace
    enter_network_namespace                enter one for the rest of the process's life
    Config, Facts, ThisMachine, ALL        settings, and the machine that they are for
    Ruleset, Table, Chain, Rule, ...       the rules; istio_iptables.rules.model has each match and target
    Prepared, Plan, Difference, Choice     what is going to change, and where
    Family, Location, Style, Action, ...   types of arguments and results, for annotations
    SettingsError, KernelError             what goes wrong, below IstioIptablesError

`istio_iptables.testing` has a kernel in memory for tests. docs/library.md explains all of it.
Names are imported when they are first used: `import istio_iptables` itself costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .aliases import Family, Location, PictureStyle, Style, TableName
    from .api import (
        build,
        configure,
        configure_with_warnings,
        lint_pods,
        picture,
        pod_settings,
        prepare,
        prove_rules,
        render,
        report,
        settings_of,
        validate,
    )
    from .change.actions import Action, AddObject, EditNative, EditTable, Live, RemoveByHandle, RemoveObject
    from .change.conflicts import Conflict
    from .change.plan import Plan
    from .errors import IstioIptablesError, KernelError, SettingsError, SettingsWarning
    from .formats.difference import Difference
    from .kernel.choose import Choice
    from .kernel.machine import Machine
    from .kernel.namespace import NetworkNamespace, network_namespace
    from .kernel.namespace import enter as enter_network_namespace
    from .kernel.prepared import Prepared
    from .kernel.this_machine import ThisMachine
    from .pod.lint.findings import Finding
    from .prove.found import Judged, Judgement, Refutation
    from .rules.edit import CreateChain, Delete, Insert, RemoveChain, ReplaceRules, TableEdit
    from .rules.model import (
        Chain,
        Cidr,
        Counters,
        Listed,
        LocalAddress,
        LocalDefaultRoute,
        MarkLookup,
        Match,
        PortRange,
        RoutingObject,
        Rule,
        Ruleset,
        Table,
        Target,
    )
    from .rules.nftables.model import Hook, NativeChain, NativeTable
    from .settings.config import ALL, Config, Everything
    from .settings.environment import Environment
    from .settings.facts import Facts
    from .settings.keywords import Settings
    from .status.settings_of import ReadBack
    from .status.untold import Untold
    from .validation.model import Identity, Observation, Probe, Result, Skipped, succeeded

__version__ = "0.1.0"  # a build writes that of its tag here: tools/version.py

#: The modules of the names; `module:name` where a name is another one there.
_WHERE = {
    "ALL": "settings.config",
    "Action": "change.actions",
    "AddObject": "change.actions",
    "Chain": "rules.model",
    "Choice": "kernel.choose",
    "Cidr": "rules.model",
    "Config": "settings.config",
    "Conflict": "change.conflicts",
    "Counters": "rules.model",
    "CreateChain": "rules.edit",
    "Delete": "rules.edit",
    "Difference": "formats.difference",
    "EditNative": "change.actions",
    "EditTable": "change.actions",
    "Environment": "settings.environment",
    "Everything": "settings.config",
    "Facts": "settings.facts",
    "Family": "aliases",
    "Finding": "pod.lint.findings",
    "Hook": "rules.nftables.model",
    "Identity": "validation.model",
    "Insert": "rules.edit",
    "IstioIptablesError": "errors",
    "Judged": "prove.found",
    "Judgement": "prove.found",
    "KernelError": "errors",
    "Listed": "rules.model",
    "Live": "change.actions",
    "LocalAddress": "rules.model",
    "LocalDefaultRoute": "rules.model",
    "Location": "aliases",
    "Machine": "kernel.machine",
    "MarkLookup": "rules.model",
    "Match": "rules.model",
    "NativeChain": "rules.nftables.model",
    "NativeTable": "rules.nftables.model",
    "NetworkNamespace": "kernel.namespace",
    "Observation": "validation.model",
    "PictureStyle": "aliases",
    "Plan": "change.plan",
    "PortRange": "rules.model",
    "Prepared": "kernel.prepared",
    "Probe": "validation.model",
    "ReadBack": "status.settings_of",
    "Refutation": "prove.found",
    "RemoveByHandle": "change.actions",
    "RemoveChain": "rules.edit",
    "RemoveObject": "change.actions",
    "ReplaceRules": "rules.edit",
    "Result": "validation.model",
    "RoutingObject": "rules.model",
    "Rule": "rules.model",
    "Ruleset": "rules.model",
    "Settings": "settings.keywords",
    "SettingsError": "errors",
    "SettingsWarning": "errors",
    "Skipped": "validation.model",
    "Style": "aliases",
    "Table": "rules.model",
    "TableEdit": "rules.edit",
    "TableName": "aliases",
    "Target": "rules.model",
    "ThisMachine": "kernel.this_machine",
    "Untold": "status.untold",
    "build": "api",
    "configure": "api",
    "configure_with_warnings": "api",
    "enter_network_namespace": "kernel.namespace:enter",
    "lint_pods": "api",
    "network_namespace": "kernel.namespace",
    "picture": "api",
    "pod_settings": "api",
    "prepare": "api",
    "prove_rules": "api",
    "render": "api",
    "report": "api",
    "settings_of": "api",
    "succeeded": "validation.model",
    "validate": "api",
}

__all__ = [
    "ALL",
    "Action",
    "AddObject",
    "Chain",
    "Choice",
    "Cidr",
    "Config",
    "Conflict",
    "Counters",
    "CreateChain",
    "Delete",
    "Difference",
    "EditNative",
    "EditTable",
    "Environment",
    "Everything",
    "Facts",
    "Family",
    "Finding",
    "Hook",
    "Identity",
    "Insert",
    "IstioIptablesError",
    "Judged",
    "Judgement",
    "KernelError",
    "Listed",
    "Live",
    "LocalAddress",
    "LocalDefaultRoute",
    "Location",
    "Machine",
    "MarkLookup",
    "Match",
    "NativeChain",
    "NativeTable",
    "NetworkNamespace",
    "Observation",
    "PictureStyle",
    "Plan",
    "PortRange",
    "Prepared",
    "Probe",
    "ReadBack",
    "Refutation",
    "RemoveByHandle",
    "RemoveChain",
    "RemoveObject",
    "ReplaceRules",
    "Result",
    "RoutingObject",
    "Rule",
    "Ruleset",
    "Settings",
    "SettingsError",
    "SettingsWarning",
    "Skipped",
    "Style",
    "Table",
    "TableEdit",
    "TableName",
    "Target",
    "ThisMachine",
    "Untold",
    "build",
    "configure",
    "configure_with_warnings",
    "enter_network_namespace",
    "lint_pods",
    "network_namespace",
    "picture",
    "pod_settings",
    "prepare",
    "prove_rules",
    "render",
    "report",
    "settings_of",
    "succeeded",
    "validate",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, _, attribute = _WHERE[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

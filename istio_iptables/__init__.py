"""istio-iptables: write, read and explain the redirection rules of an Istio sidecar.

The library in one breath: `configure` checks settings and makes a Config, `build` makes the
Ruleset that it means, `render` shows it, `Machine` is the kernel, `prepare` plans against it, and
the plan is applied:

    from istio_iptables import Machine, build, configure, prepare

    wanted = build(configure({"istio-inbound-ports": "*"}))
    with Machine() as machine:
        prepared = prepare(machine, wanted)
        for difference in prepared.differences:
            print(difference.title)
        prepared.apply()

Names are imported when they are first used: `import istio_iptables` itself costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .api import build, configure, lint_pods, pod_settings, prepare, render, validate
    from .change.plan import Plan
    from .errors import IstioIptablesError, KernelError, SettingsError
    from .kernel.machine import Machine
    from .kernel.namespace import enter as enter_network_namespace
    from .kernel.prepared import Prepared
    from .kernel.this_machine import ThisMachine
    from .rules.model import Ruleset
    from .settings.config import Config
    from .settings.facts import Facts

__version__ = "0.1.0"

_WHERE = {
    "Config": "settings.config",
    "Facts": "settings.facts",
    "IstioIptablesError": "errors",
    "KernelError": "errors",
    "Machine": "kernel.machine",
    "Plan": "change.plan",
    "Prepared": "kernel.prepared",
    "Ruleset": "rules.model",
    "SettingsError": "errors",
    "ThisMachine": "kernel.this_machine",
    "build": "api",
    "configure": "api",
    "enter_network_namespace": "kernel.namespace",
    "lint_pods": "api",
    "pod_settings": "api",
    "prepare": "api",
    "render": "api",
    "validate": "api",
}

__all__ = [
    "Config",
    "Facts",
    "IstioIptablesError",
    "KernelError",
    "Machine",
    "Plan",
    "Prepared",
    "Ruleset",
    "SettingsError",
    "ThisMachine",
    "build",
    "configure",
    "enter_network_namespace",
    "lint_pods",
    "pod_settings",
    "prepare",
    "render",
    "validate",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    attribute = "enter" if name == "enter_network_namespace" else name
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), attribute)

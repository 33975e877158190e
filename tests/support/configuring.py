"""configuring: from a command line and variables to a Config, its mistakes and its warnings."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from istio_iptables.cli.collect import collect
from istio_iptables.errors import SettingsError
from istio_iptables.kernel.this_machine import ThisMachine
from istio_iptables.settings.config import Config
from istio_iptables.settings.declared import Setting
from istio_iptables.settings.facts import Facts
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.settings.resolve import Parsed, parse, resolve

FACTS = Facts(
    users={"istio-proxy": 1337, "envoy": 101, "postgres": 70},
    groups={"istio-proxy": 1338, "payments": 2000},
)


def parsed(*arguments: str, environ: Mapping[str, str] | None = None, facts: Facts = FACTS) -> Parsed:
    given, mistakes = collect(read_arguments(arguments), environ or {})
    return parse(given, facts, mistakes)


def mistakes_of(*arguments: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parsed(*arguments, environ=environ)
    assert caught.value.exit_code == 2
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    return list(caught.value.mistakes)


def configured(*arguments: str, environ: Mapping[str, str] | None = None, facts: Facts = FACTS) -> Config:
    return resolve(parsed(*arguments, environ=environ, facts=facts), facts)[0]


def warnings_of(*arguments: str, facts: Facts | ThisMachine, environ: Mapping[str, str] | None = None) -> str:
    return "\n".join(resolve(parsed(*arguments, environ=environ), facts)[1])


def named(setting: Setting) -> str:
    return setting.name


ALIASES = {
    "redirect-dns": "ISTIO_META_DNS_CAPTURE",
    "drop-invalid": "INVALID_DROP",
    "dual-stack": "ISTIO_DUAL_STACK",
}

#: SPEC section 2: accepted with a warning, and without a value those that are booleans in Istio's tool.
ACCEPTED = {
    **dict.fromkeys(["restore-format", "iptables-trace-logging", "host-nsenter-exec"], "false"),
    **dict.fromkeys(["vklog", "iptables-version", "output-paths", "ISTIO_INBOUND_EXCLUDE_PORTS"], ""),
    **dict.fromkeys(["log_rotate", *(f"log_rotate_max_{what}" for what in ("age", "backups", "size"))], ""),
}

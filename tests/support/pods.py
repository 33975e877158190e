"""pods: what a manifest means: its settings or its mistakes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from istio_iptables import SettingsError, pod_settings
from istio_iptables.cli.collect import collect
from istio_iptables.pod import Pod, read_settings
from istio_iptables.pod.manifest import pick, pods
from istio_iptables.settings.config import Config
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.settings.resolve import parse, resolve
from tests.support.manifests import FACTS


def only(thing: Any) -> Pod:
    return pick(pods(json.dumps(thing), "manifest"), "", "manifest")


def meaning(thing: Any) -> dict[str, tuple[str, str]]:
    """The settings of a pod: setting -> its value and where it was given."""
    said = read_settings(only(thing))
    assert said.mistakes == said.refusals == ()
    return {item.setting.name: (item.text, item.origin) for item in said.given}


def mistakes_of(thing: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        pod_settings(json.dumps(thing))
    return list(caught.value.mistakes)


def configured(*arguments: str, environ: Mapping[str, str] | None = None) -> Config:
    given, mistakes = collect(read_arguments(arguments), environ or {})
    return resolve(parse(given, FACTS, mistakes), FACTS)[0]

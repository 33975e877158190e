"""The Envoy of deploy/kustomize: the real one takes its configuration, and cannot be made to call itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e import envoy
from tests.e2e.conversation import Conversation
from tests.e2e.envoy import Envoy, Identity
from tests.e2e.mesh import APP
from tests.support.deploy import BASE
from tests.support.netns import Pod
from tests.support.scenarios import Scenario, apply, resolve


def example() -> dict[str, Any]:
    """Envoy's configuration as the ConfigMap has it."""
    config_map = yaml.safe_load((BASE / "envoy.yaml").read_text(encoding="utf-8"))
    configuration: dict[str, Any] = yaml.safe_load(config_map["data"]["envoy.yaml"])
    return configuration


@contextmanager
def pod_of_the_example(backend: str | None) -> Iterator[tuple[Pod, Envoy]]:
    """Run the example's Envoy and an application, and write the rules if there is a backend to."""

    def configured(admin: Path) -> dict[str, Any]:
        return {**example(), "admin": {"address": {"pipe": {"path": str(admin)}}}}

    with Pod(ipv6=False) as pod:
        pod.listen("app", tcp=[8080], uid=APP[0], gid=APP[1], echo=True)
        with envoy.running_with(pod, Identity(), configured) as running:
            if backend:
                apply(pod, Scenario("", ["-b", "*", "-i", "*"], families="4"), backend)
            yield pod, running


def test_envoy_takes_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "envoy.yaml"
    command = [envoy.binary_path(), "--mode", "validate", "--config-path", str(file)]
    for text, status in (
        (yaml.safe_dump(example()), 0),
        (yaml.safe_dump({**example(), "nonsense": 1}), 1),
    ):
        file.write_text(text)
        assert subprocess.run(command, capture_output=True, check=False).returncode == status


@pytest.mark.parametrize("backend", [None, "libiptc"])
def test_who_dials_the_listeners_from_outside_makes_no_loop(backend: str | None) -> None:
    """Without rules each is dialled directly; with them, 15001 is what the inbound listener is asked for."""
    no_host = {"blackhole had no host for": 1}
    through = {"inbound opened": 1} if backend else {}
    with pod_of_the_example(backend) as (pod, running):
        for port, opened in ((envoy.INBOUND_PORT, {}), (envoy.OUTBOUND_PORT, through)):
            before = running.counters()
            with pytest.raises(ConnectionResetError):
                Conversation(pod.client, 0, 0, (resolve("pod", 4), port))
            assert envoy.difference(before, running.counters()) == {**no_host, **opened}, port
        before = running.counters()
        with Conversation(pod.client, 0, 0, (resolve("pod", 4), 8080)) as conversation:
            conversation.exchange(1000)
        assert envoy.difference(before, running.counters()) == through

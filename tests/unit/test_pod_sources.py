"""Manifests as a source of settings: mistakes in them, and what takes precedence over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from istio_iptables import SettingsError, configure, pod_settings
from istio_iptables.cli.collect import collect
from istio_iptables.pod import read_settings
from istio_iptables.pod.container import container_settings, for_entry
from istio_iptables.pod.manifest import pods
from istio_iptables.settings.declared import BY_NAME
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.settings.resolve import parse
from tests.support.cases import all_cases
from tests.support.manifests import FACTS, TRAFFIC, init, manifest, odd_pods, proxy, valid_pods
from tests.support.pods import configured, meaning, mistakes_of, only

MODE = "sidecar.istio.io/interceptionMode"


# --- mistakes ---------------------------------------------------------------------------------


def test_all_mistakes_are_reported_by_annotation_in_one_go():
    thing = manifest(
        {
            f"{TRAFFIC}includeInboundPorts": "x,70000",
            f"{TRAFFIC}excludeOutboundIPRanges": "*",
            "sidecar.istio.io/interceptionMode": "tproxy",
        },
        [proxy(env=[{"name": "INVALID_DROP", "value": "yes"}], securityContext={"runAsUser": "root"})],
        [init("-p", "0", "--nonsense", "--config=x")],
    )
    where = "pod web: annotation"
    starts = [
        "pod web: container istio-proxy: securityContext.runAsUser: 'root' is not a number",
        "pod web: container istio-init: --nonsense: unknown flag",
        "pod web: container istio-init: --config: 'x' is a file in the container",
        f"{where} sidecar.istio.io/interceptionMode: 'tproxy' is not one of REDIRECT, TPROXY",
        f"{where} {TRAFFIC}excludeOutboundIPRanges: '*' cannot be used here",
        f"{where} {TRAFFIC}includeInboundPorts: 'x' is not a port",
        f"{where} {TRAFFIC}includeInboundPorts: '70000' is not a port",
        "pod web: container istio-proxy: variable INVALID_DROP: 'yes' is not a boolean",
        "pod web: container istio-init: --envoy-port (-p): '0' is not a port",
    ]
    found = mistakes_of(thing)
    assert len(found) == len(starts)
    for mistake, start in zip(found, starts, strict=True):
        assert mistake.startswith(start)


PROXY, INIT = "container istio-proxy", "container istio-init"
BARE = {"kind": "Pod", "metadata": {"name": "web"}}
ELSEWHERE = [{"name": "INVALID_DROP", "valueFrom": {"x": 1}}]
OTHER_PROGRAM = {"name": "istio-init", "command": ["sh", "-c", "x"]}


@all_cases(
    ("thing", "mistake"),
    [
        (manifest(hostNetwork=True), "hostNetwork: "),
        (manifest({MODE: "NONE"}), f"annotation {MODE}: 'NONE' captures nothing: no settings mean that"),
        (manifest(inits=[init("cleanup")]), f"{INIT}: 'cleanup': a command that sets up no"),
        (manifest(inits=[init("--help=\n")]), f"{INIT}: --help=\\n: sets up no rules"),
        (manifest(inits=[OTHER_PROGRAM]), f"{INIT}: command: 'sh' is not istio-iptables"),
        (manifest(containers=[proxy(env=ELSEWHERE)]), f"{PROXY}: variable INVALID_DROP: its value is not in"),
        (manifest(inits=[init(env=ELSEWHERE)]), f"{INIT}: variable INVALID_DROP: its value is not in"),
        ({**BARE, "metadata": {"name": "web", "annotations": ["a"]}}, "metadata.annotations: is a list and"),
        ({**BARE, "spec": "x"}, "spec: is a string and should be a mapping"),
        ({**BARE, "spec": 5}, "spec: is a number and should be a mapping"),
        ({**BARE, "spec": True}, "spec: is a boolean and should be a mapping"),
        (manifest(hostNetwork=1), "spec.hostNetwork: is a number and should be true or false"),
        (manifest(containers={"name": "app"}), "spec.containers: is a mapping and should be a list"),  # type: ignore[arg-type]
        (manifest(hostNetwork="perhaps"), "spec.hostNetwork: is a string and should be true or false"),
    ],
)
def test_one_mistake(thing: Any, mistake: str):
    found = mistakes_of(thing)
    assert len(found) == 1
    assert found[0].startswith(f"pod web: {mistake}")
    assert found[0].isprintable()


def test_values_that_are_not_in_the_manifest_and_are_no_settings_do_not_matter():
    variables = [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    assert meaning(manifest(containers=[proxy(env=variables)], inits=[init(env=variables)]))


# --- as a source of settings ------------------------------------------------------------------


@pytest.fixture
def web(tmp_path: Path) -> str:
    file = tmp_path / "web.yaml"
    file.write_text(yaml.safe_dump(manifest({f"{TRAFFIC}includeInboundPorts": "80"})))
    return str(file)


def test_a_pod_is_weaker_than_variables_files_and_flags(web: str, tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text("istio-inbound-ports: 81\n")
    assert [str(port) for port in configured("--pod", web).inbound_ports] == ["80"]  # type: ignore[union-attr]
    for arguments, environ, port in (
        (["--config", str(file), "--pod", web], {}, "81"),
        (["--pod", web, "--config", str(file)], {}, "81"),
        (["--pod", web], {"ISTIO_INBOUND_PORTS": "82"}, "82"),
        (["-b", "83", "--pod", web], {"ISTIO_INBOUND_PORTS": "82"}, "83"),
    ):
        assert [str(p) for p in configured(*arguments, environ=environ).inbound_ports] == [port]  # type: ignore[union-attr]


def test_the_operand_of_a_command_is_a_pod_too(web: str):
    assert (
        configured("pod", "args", web) == configured("--pod", web) == configured("pod", "init-container", web)
    )


def test_which_pod_of_several(tmp_path: Path):
    file = tmp_path / "all.yaml"
    things = [manifest({f"{TRAFFIC}includeInboundPorts": str(i)}, name=f"p{i}") for i in (1, 2)]
    file.write_text(yaml.safe_dump_all(things))
    assert [str(p) for p in configured("--pod", str(file), "--pod-name=p2").inbound_ports] == ["2"]  # type: ignore[union-attr]
    _, mistakes = collect(read_arguments(["--pod", str(file), "-b", "80"]), {})
    assert mistakes == [f"--pod: {str(file)!r} contains 2 pods, choose one with --pod-name: p1, p2"]


# --- properties -------------------------------------------------------------------------------


@given(valid_pods())
def test_the_arguments_of_a_pod_mean_what_the_pod_means(thing: dict[str, Any]):
    text = json.dumps(thing)
    wanted = configure(pod_settings(text), environment=FACTS)
    found = container_settings(read_settings(only(thing)).given)
    operation = parse(found.settings, FACTS).operation()
    for arguments in (found.arguments(), for_entry(found, operation).arguments()):
        invocation = read_arguments(arguments)
        assert invocation.mistakes == ()
        assert configured(*arguments, environ=found.variables()) == wanted


@given(odd_pods(), st.booleans())
def test_whatever_is_in_a_manifest_is_settings_or_mistakes(thing: Any, as_yaml: bool):
    text = yaml.safe_dump(thing, allow_unicode=True) if as_yaml else json.dumps(thing)
    mistakes: tuple[str, ...] = ()
    try:
        settings = pod_settings(text)
    except SettingsError as error:
        mistakes = error.mistakes
    if mistakes:
        assert all(mistake.isprintable() for mistake in mistakes)
    else:
        configure(settings, environment=FACTS)
        assert set(settings) <= set(BY_NAME)


@given(st.text() | st.text(alphabet="kind: Pod{}[]\n-&*!|>\"'#,"))
def test_any_text_is_a_manifest_or_a_mistake(text: str):
    mistakes: tuple[str, ...] = ("one",)
    try:
        pods(text, "m")
    except SettingsError as error:
        mistakes = error.mistakes
    assert len(mistakes) == 1

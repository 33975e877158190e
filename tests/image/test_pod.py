"""The image as the init container of a pod, next to an application and a proxy in containers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.image.podman import ARGUMENTS, IMAGE, INIT_CONTAINER, PodmanPod, engine, new_name, run
from tests.support.arrivals import Call, Endpoint

BACKENDS: dict[str, list[str]] = {
    "libiptc": [],
    "legacy": ["--force-iptables-binary=legacy"],
    "nft": ["--force-iptables-binary=nft"],
    "native": ["--native-nftables"],
}
SERVICES = {"ipv4": "198.18.0.80", "ipv6": "2001:db8::80"}
OWN = {"ipv4": "10.88.0.2", "ipv6": "fd88::2"}
every_family = pytest.mark.parametrize("family", ["ipv4", "ipv6"])


class Mesh(NamedTuple):
    """A pod after its init container has run."""

    pod: PodmanPod
    init: str  #: the init container's name
    app: str
    proxy: str
    options: list[str]


@pytest.fixture(scope="module", params=BACKENDS)
def mesh(request: pytest.FixtureRequest) -> Iterator[Mesh]:
    """Start a pod as Kubernetes does: the init container to its end, then the rest."""
    with PodmanPod() as pod:
        init = new_name()
        options = ["--dual-stack", *BACKENDS[request.param]]
        words = (f"--name={init}", f"--pod={pod.pod}", *INIT_CONTAINER)
        engine("run", *words, IMAGE, "istio-iptables", *ARGUMENTS, *options)
        app = pod.serve("app", 1000, [8080, 15090])
        proxy = pod.serve("proxy", 1337, [15001, 15006])
        pod.client.listen("service", tcp=[80])
        pod.wait_for(8080, 15001)
        yield Mesh(pod, init, app, proxy, options)


def arrived(call: Call) -> tuple[str, int, Endpoint | None]:
    assert call.arrival, call
    return call.arrival.name, call.arrival.port, call.arrival.original


@every_family
def test_traffic_goes_through_the_proxy(mesh: Mesh, family: str) -> None:
    pod, service, own = mesh.pod, SERVICES[family], OWN[family]
    outbound = pod.dial(mesh.app, service, 80)
    assert (outbound.name, outbound.port, outbound.original) == ("proxy", 15001, (service, 80))
    assert arrived(pod.client.connect(own, 8080)) == ("proxy", 15006, (own, 8080))
    # What is left alone: the proxy, a port that is excluded, and what the application says to itself.
    assert pod.dial(mesh.proxy, service, 80).name == "service"
    assert arrived(pod.client.connect(own, 15090))[:2] == ("app", 15090)
    assert pod.dial(mesh.app, own, 8080).name == "app"


def test_the_init_container_starts_again(mesh: Mesh) -> None:
    """The kubelet does that now and then: nothing is written, and the counters go on."""

    def state() -> list[str]:
        texts = [
            mesh.pod.run([f"{command}-legacy-save", "-c"]).stdout for command in ("iptables", "ip6tables")
        ]
        texts += [mesh.pod.run(["nft", "list", "ruleset"]).stdout]
        return [line for text in texts for line in text.splitlines() if not line.startswith("#")]

    before = state()
    assert any("ISTIO_IN_REDIRECT" in line or "istio-in-redirect" in line for line in before)
    for _ in range(2):
        assert engine("start", "--attach", mesh.init).code == 0
        assert state() == before
    assert "nothing to do" in mesh.pod.log(mesh.init).splitlines()[-1]


def test_other_settings_need_a_word(mesh: Mesh) -> None:
    done = mesh.pod.init(*ARGUMENTS, *mesh.options, "-o", "9999")
    assert done.code == 3, done
    assert "9999" in done.out
    assert mesh.pod.init("diff", *ARGUMENTS, *mesh.options).code == 0


def test_it_is_taken_away_again() -> None:
    with PodmanPod() as pod:
        pod.serve("app", 1000, [8080])
        pod.serve("proxy", 1337, [15001, 15006])
        pod.wait_for(8080, 15006)
        assert pod.init(*ARGUMENTS).code == 0
        assert arrived(pod.client.connect(OWN["ipv4"], 8080))[0] == "proxy"
        assert pod.init(entrypoint="istio-clean-iptables").code == 0
        assert arrived(pod.client.connect(OWN["ipv4"], 8080)) == ("app", 8080, None)


def test_validation_as_the_proxys_user() -> None:
    """As Istio calls it where a CNI plugin has made the rules: no rights, nothing to write on."""
    restrictions = ("--user=1337:1337", "--cap-drop=all", *INIT_CONTAINER[3:])
    arguments = (*ARGUMENTS, "--run-validation", "--skip-rule-apply")
    with PodmanPod(ipv6=False) as pod:
        options = (f"--pod={pod.pod}", *restrictions)
        assert run(*arguments, options=options).code == 126
        assert pod.init(*ARGUMENTS).code == 0
        done = run(*arguments, options=options)
        assert done.code == 0, done

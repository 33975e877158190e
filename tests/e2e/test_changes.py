"""What happens to connections through Envoy when the rules change, or Envoy goes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from tests.e2e.conversation import LIMIT, Conversation, failure
from tests.e2e.journey import (
    FROM_OUTSIDE,
    FROM_OUTSIDE_EXCLUDED,
    OF_ENVOY,
    TO_EXCLUDED_NETWORK,
    TO_EXCLUDED_PORT,
    TO_OWN_POD,
    TO_OWN_SERVICE,
    TO_SELF,
    TO_WORLD,
    Journey,
    check,
    miscounted,
)
from tests.e2e.mesh import SERVICE, SETTINGS, Mesh, each_backend, each_mode, envoy_in, mesh_of

THROUGH_ENVOY = (FROM_OUTSIDE, TO_WORLD, TO_OWN_SERVICE)
#: What is dialled there, if nothing is captured.
DIRECTLY = (
    Journey("client", "pod:8080", [], "app", "client"),
    Journey("app", "world:80", [], "world", "pod"),
    Journey("app", f"{SERVICE}:80", [], "world", "pod"),
)
#: Settings that capture nothing of what THROUGH_ENVOY dials.
OTHER_SETTINGS = ("-b", "*", "-d", "15020,8080", "-i", "*", "-x", "198.18.0.0/15,2001:db8::/32", "-o", "3306")


@contextmanager
def open_connections(
    mesh: Mesh, journeys: Sequence[Journey], versions: Sequence[int]
) -> Iterator[list[Conversation]]:
    """Have connections through Envoy that are open."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(mesh.connect(journey.who, journey.to, version))
            for journey in journeys
            for version in versions
        ]


@contextmanager
def talking(talks: Sequence[Conversation]) -> Iterator[None]:
    """Have data on its way over all of the connections all the while, and before and after."""
    done, begun, errors = threading.Event(), threading.Barrier(len(talks) + 1), list[Exception]()

    def talk_on(talk: Conversation) -> None:
        try:
            talk.exchange(10_001)
            begun.wait()
            while not done.is_set():
                talk.exchange(10_001)
            talk.exchange(10_001)
        except Exception as error:
            errors.append(error)
            begun.abort()

    threads = [threading.Thread(target=talk_on, args=(talk,)) for talk in talks]
    for thread in threads:
        thread.start()
    try:
        begun.wait()
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
        assert not errors, errors


@each_mode
@each_backend
def test_open_connections_outlive_a_change_of_settings(mode: str, backend: str) -> None:
    """Even those that would now be captured, and are not, and the other way round."""
    with mesh_of(mode, backend) as mesh, open_connections(mesh, THROUGH_ENVOY, mesh.versions) as captured:
        before = mesh.envoy.counters()
        with talking(captured):
            mesh.write_rules(*OTHER_SETTINGS, "--reconcile")
        assert not miscounted(mesh, before, {})
        check(mesh, *DIRECTLY)
        with open_connections(mesh, DIRECTLY, mesh.versions) as direct:
            with talking([*captured, *direct]):
                mesh.write_rules(*SETTINGS, "--reconcile")
            assert not miscounted(mesh, before, {})
            check(mesh, *THROUGH_ENVOY)
            for talk in [*captured, *direct]:
                talk.finish()


@each_mode
@each_backend
def test_a_second_run_leaves_open_connections_alone(mode: str, backend: str) -> None:
    with mesh_of(mode, backend) as mesh, open_connections(mesh, THROUGH_ENVOY, mesh.versions) as captured:
        before = mesh.envoy.counters()
        with talking(captured):
            mesh.write_rules(*SETTINGS)
            mesh.write_rules(*SETTINGS, "--reconcile")
        assert not miscounted(mesh, before, {})
        check(mesh, *THROUGH_ENVOY)
        for talk in captured:
            talk.finish()


@each_mode
@each_backend
def test_after_cleanup_new_connections_go_directly(mode: str, backend: str) -> None:
    """Nothing is promised to those that are open: with the last rule that needs NAT the kernel stops it."""
    with mesh_of(mode, backend) as mesh, open_connections(mesh, THROUGH_ENVOY, mesh.versions):
        before = mesh.envoy.counters()
        done = mesh.pod.tool("cleanup")
        assert done.code == 0, done.err
        check(mesh, *DIRECTLY, TO_OWN_POD, TO_SELF)
        assert not miscounted(mesh, before, {})


@each_backend
def test_open_connections_outlive_a_cleanup_where_another_program_needs_nat(backend: str) -> None:
    """As on a machine with containers: there the kernel goes on translating what it has begun to.

    Not those that IPv6 brings in, since ::6 goes away, nor in TPROXY mode those that come in, since marks do.
    """
    with (
        mesh_of("REDIRECT", backend) as mesh,
        open_connections(mesh, [TO_WORLD], (4, 6)) as outbound,
        open_connections(mesh, [FROM_OUTSIDE, TO_OWN_SERVICE], (4,)) as inbound,
    ):
        for command, network in (("iptables-nft", "192.0.2.0/24"), ("ip6tables-nft", "2001:db8:2::/64")):
            rule = f"{command} -t nat -A POSTROUTING -s {network} -j MASQUERADE"
            mesh.pod.run(rule.split())
        done = mesh.pod.tool("cleanup")
        assert done.code == 0, done.err
        for talk in [*outbound, *inbound]:
            talk.exchange(10_001)
            talk.finish()


@each_mode
@pytest.mark.parametrize(
    ("before", "after"),
    [("libiptc", "native"), ("native", "libiptc"), ("libiptc", "nft"), ("nft", "native")],
)
def test_connections_after_a_move_to_another_backend_and_before(mode: str, before: str, after: str) -> None:
    """In TPROXY mode those that are open do not outlive it if anything comes in over them just then.

    For a moment there are both sets of rules. What one has marked as the proxy's (ISTIO_DIVERT) the other
    takes for a packet of Envoy's own, and keeps the mark with the connection (CONNMARK --save-mark): from
    then on what the pod sends over it does not leave the pod.
    """
    lasting = THROUGH_ENVOY if mode == "REDIRECT" else ()
    with mesh_of(mode, before) as mesh, open_connections(mesh, lasting, mesh.versions) as captured:
        counted = mesh.envoy.counters()
        with talking(captured):
            replace(mesh, backend=after).write_rules(*SETTINGS, "--reconcile")
        assert not miscounted(mesh, counted, {})
        check(mesh, *THROUGH_ENVOY)
        for talk in captured:
            talk.finish()


#: These do not need Envoy.
NOT_CAPTURED = (FROM_OUTSIDE_EXCLUDED, TO_EXCLUDED_NETWORK, TO_EXCLUDED_PORT, TO_OWN_POD, TO_SELF, OF_ENVOY)


def who_answers(mesh: Mesh, journey: Journey, version: int, limit: float) -> str:
    """Return who answers, or in a word why there is no answer."""
    try:
        with mesh.connect(journey.who, journey.to, version, limit) as talk:
            return talk.arrival.name
    except OSError as error:
        return failure(error)


@each_mode
@each_backend
def test_without_envoy_nothing_gets_past_it(mode: str, backend: str) -> None:
    with mesh_of(mode, backend) as mesh:
        with open_connections(mesh, THROUGH_ENVOY, mesh.versions) as cut:
            mesh.envoy.kill()
            for talk in cut:
                with pytest.raises((ConnectionError, AssertionError)):
                    talk.exchange(1000)
        heard = len(mesh.app.arrivals()), len(mesh.world.arrivals())
        for version in mesh.versions:
            # From outside: redirected to a port that is closed; TPROXY drops what no process listens for.
            inbound = "timeout" if mesh.tproxy else "refused"
            assert who_answers(mesh, FROM_OUTSIDE, version, 1.0) == inbound
            assert who_answers(mesh, TO_WORLD, version, 10.0) == "refused"
            assert who_answers(mesh, TO_OWN_SERVICE, version, 10.0) == "refused"
        assert heard == (len(mesh.app.arrivals()), len(mesh.world.arrivals()))
        for journey in NOT_CAPTURED:
            for version in mesh.versions:
                assert who_answers(mesh, journey, version, LIMIT) == journey.far
        with envoy_in(mesh.pod, mode, mesh.identity, mesh.versions) as again:
            restarted = replace(mesh, envoy=again)
            check(restarted, *THROUGH_ENVOY)
            direct = (
                FROM_OUTSIDE_EXCLUDED,
                TO_EXCLUDED_NETWORK,
                TO_EXCLUDED_PORT,
                TO_OWN_POD,
                TO_SELF,
                OF_ENVOY,
            )
            check(restarted, *direct)

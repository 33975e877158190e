"""trace --watch: real packets with the rules that they met, in every backend; none is lost, nothing stays."""

from __future__ import annotations

import os
import random
import signal
import socket
import time

import pytest

from istio_iptables.kernel.netlink.packet_trace import TraceSockets
from tests.support.seeing import CAPTURED, COMMAND, FORMS, SETTINGS, Watching, dial, every_form, pod, rules

from ..support.failing import comparable
from ..support.scratch import KERNEL, Scratch, wait_until

pytestmark = KERNEL

SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
_LOGGERS = ("/proc/sys/net/netfilter/nf_log/2", "/proc/sys/net/netfilter/nf_log/10")


@every_form
def test_a_real_packet_is_shown_with_the_rules_that_it_met(form: str) -> None:
    with pod() as scratch:
        scratch.apply(*FORMS[form], *SETTINGS)
        watching = Watching(scratch, "--count", "1")
        dial(scratch)
        [shown] = watching.packets()
        assert shown["packet"]["destination"] == "10.8.1.1"
        steps = [step for step in shown["steps"] if step["step"] == "rule"]
        assert [step["chain"].upper().replace("-", "_") for step in steps] == [
            "OUTPUT",
            "ISTIO_OUTPUT",
            "ISTIO_REDIRECT",
        ]
        assert "15001" in steps[-1]["text"]
        assert all(step["reason"] for step in steps), steps  # without any setting
        assert shown["end"] == "accepted by the last chain that was seen"
        assert shown["verdict"] == {"code": "redirected", "to": "15001"}
        assert shown["packet"]["state"] is None  # the kernel does not tell it
        assert "istio-iptables-trace" not in scratch.nft("list", "tables")


@pytest.mark.parametrize("form", ["iptables-legacy-restore", "native"])
def test_of_many_packets_at_once_none_is_lost_and_each_has_all_its_steps(form: str) -> None:
    """A hundred connections in a moment: the kernel puts many events into one message, of two sockets."""
    many = 100
    with pod() as scratch:
        scratch.apply(*FORMS[form], *SETTINGS)
        # Another program's table, so that each packet has events of nf_tables and of legacy tables.
        scratch.nft(
            script="table inet own { chain c { type filter hook output priority 50; counter accept; }; }"
        )
        watching = Watching(scratch, "--count", str(many))
        dial(scratch, number=many)
        shown = watching.packets()
    assert len({packet["packet"]["source_port"] for packet in shown}) == many
    ways = {tuple(rules(packet)) for packet in shown}
    assert len(ways) == 1, ways
    [way] = ways
    assert len(way) == 4
    assert "15001" in way[2]
    assert "accept" in way[3]


@pytest.mark.parametrize(("interface", "to"), [("eth0", CAPTURED), ("out", CAPTURED), ("eth0", "10.0.0.2:9")])
def test_a_socket_that_is_bound_to_an_interface(interface: str, to: str) -> None:
    """Its packets leave by that interface, but for those to the pod itself, which leave by lo."""
    with pod() as scratch:
        scratch.apply(*SETTINGS)
        watching = Watching(scratch, "--count", "1", "--iface", interface, to=to)
        if to == CAPTURED:
            dial(scratch, to)  # by eth0, and so not meant by `--iface out`
        dial(scratch, to, bound=interface)
        [shown] = watching.packets()
        assert shown["packet"]["sent_to"] == ("lo" if to != CAPTURED else interface)


def test_packets_that_another_watcher_traces_are_left_out() -> None:
    with pod() as scratch:
        scratch.apply("--native-nftables", *SETTINGS)
        one, other = Watching(scratch, "--count", "1"), Watching(scratch, "--count", "1", to="10.9.1.1:80")
        dial(scratch)
        dial(scratch, "10.9.1.1:80")
        for watching, to in ((one, "10.8.1.1"), (other, "10.9.1.1")):
            assert [packet["packet"]["destination"] for packet in watching.packets()] == [to]
        # What was read while both had a table of their own: nothing of it is missing, or in the way.
        assert scratch.nft("list", "tables").split("\n")[:-1] == ["table inet istio-proxy-nat"]


def test_live_rules_can_be_traced_while_packets_are_watched() -> None:
    with pod() as scratch:
        scratch.apply("--native-nftables", *SETTINGS)
        watching = Watching(scratch)
        done = scratch.run(
            *COMMAND, "trace", "out", "--to", CAPTURED, "--live", "--expect", "redirected 15001"
        )
        assert done.returncode == 0, done.stderr
        assert watching.end(signal.SIGINT) == 0


# --- nothing stays ----------------------------------------------------------------------------


def test_a_packet_is_there_as_soon_as_it_was_logged() -> None:
    """By default the kernel collects a hundred packets, or those of a second, before it sends them on."""
    with pod() as scratch, scratch.inside(), TraceSockets() as sockets:
        prefix = "TRACE: raw:OUTPUT:rule:1 "
        command = ("iptables-legacy", "-t", "raw", "-A", "OUTPUT", "-j", "NFLOG", "--nflog-prefix", prefix)
        scratch.check(*command)
        sockets.bind_log()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("127.0.0.1", 9))
        events = sockets.read(0)
    assert [(each.table, each.chain) for each in events[:1]] == [("raw", "OUTPUT")]


def loggers(scratch: Scratch) -> str:
    return scratch.check("cat", *_LOGGERS)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_nothing_stays_of_a_watcher_that_is_ended(how: int) -> None:
    with pod() as scratch:
        scratch.apply("--force-iptables-binary", "legacy", *SETTINGS)
        before = comparable(scratch.state()), loggers(scratch)
        Watching(scratch).end(how)
        wait_until(lambda: loggers(scratch) == before[1])
        assert comparable(scratch.state()) == before[0]


def test_nothing_stays_of_a_watcher_that_is_killed_at_any_moment() -> None:
    """Neither a rule, nor a table, nor a changed logger: killed while it starts, watches or shows packets."""
    with pod() as scratch:
        scratch.apply("--force-iptables-binary", "legacy", *SETTINGS)
        before = comparable(scratch.state()), loggers(scratch)
        started = time.monotonic()
        Watching(scratch).end(signal.SIGKILL)
        ready = time.monotonic() - started
        wait_until(lambda: loggers(scratch) == before[1])
        moments = random.Random(os.urandom(8))
        for _ in range(50 if SOAK else 8):
            after = moments.uniform(0, 1.6 * ready)
            process = scratch.spawn(*COMMAND, "trace", "out", "--to", CAPTURED, "--watch")
            deadline = time.monotonic() + after
            while time.monotonic() < deadline:
                if deadline - time.monotonic() > 0.1:
                    dial(scratch)
                else:
                    time.sleep(max(0.0, deadline - time.monotonic()))
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            wait_until(lambda: loggers(scratch) == before[1])
            assert comparable(scratch.state()) == before[0], f"killed after {after:.3f} s"

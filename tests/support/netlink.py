"""netlink: namespaces in which functions of the netlink client are called.

The client works in the namespace of the calling process, so what a test calls runs in a forked child
that has entered the namespace first; what such a child patches is gone with it.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import pickle
import signal
import subprocess
from contextlib import contextmanager

import pytest

from istio_iptables.kernel.netlink.routing import Address, NetlinkError

from .scratch import wait_until

CLONE_NEWNET = 0x40000000
ALL_ONES = 0xFFFFFFFF
FAMILIES = ("ipv4", "ipv6")
TABLES = (133, 4000)
FLAG = {"ipv4": "-4", "ipv6": "-6"}
OTHER = {"ipv4": "ipv6", "ipv6": "ipv4"}
each_family = pytest.mark.parametrize("family", FAMILIES)
each_table = pytest.mark.parametrize("table", TABLES)


class Namespace:
    """A network namespace: commands and functions run inside, and what `ip` sees there."""

    def __init__(self, name):
        self.name = name

    def run(self, *command, check=True, stdin=""):
        inside = ("ip", "netns", "exec", self.name)
        done = subprocess.run([*inside, *command], input=stdin, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done

    def ip(self, words):
        return self.run("ip", *words.split()).stdout

    def ip_batch(self, lines, flag="-4"):
        self.run("ip", flag, "-batch", "-", stdin="\n".join(lines) + "\n")

    def see(self, words):
        """Return all that `ip` knows, with details, as parsed JSON."""
        return json.loads(self.ip(f"-details -json {words}") or "[]")

    def refusal(self, words):
        """Return why the kernel refuses an `ip` command, with its own explanation if there is one."""
        done = self.run("ip", *words.split(), check=False)
        assert done.returncode != 0
        return done.stderr.splitlines()[0].removeprefix("Error: ").removesuffix(".")

    def call(self, function, *arguments, user=None, **named):
        """Return what the function returns, or raise what it raises, in here, as `user` if given."""
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            self._report(write_end, user, lambda: function(*arguments, **named))
        os.close(write_end)
        with os.fdopen(read_end, "rb") as stream:
            report = stream.read()
        os.waitpid(child, 0)
        succeeded, outcome = pickle.loads(report)
        if succeeded:
            return outcome
        raise outcome

    def _report(self, write_end, user, function):
        """Run the function in the child and send back what came of it; never return."""
        try:
            signal.alarm(60)  # a child that hangs must not outlive the test, nor keep its namespace
            try:
                enter(self.name)
                if user is not None:
                    os.setgroups([])
                    os.setresuid(user, user, user)
                outcome = (True, function())
            except BaseException as error:
                outcome = (False, error)
            with os.fdopen(write_end, "wb") as stream:
                pickle.dump(outcome, stream)
        finally:
            os._exit(0)


def enter(name):
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{name}") as handle:
        if libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


numbers = itertools.count()


@contextmanager
def new_space():
    """Make a namespace in which `lo` is up."""
    name = f"nlt-{os.getpid()}-{next(numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        namespace = Namespace(name)
        namespace.ip("link set lo up")
        yield namespace
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def wire(space):
    """Add the interfaces d0 and d1 beside lo, which have no addresses of their own."""
    space.run("sysctl", "-qw", "net.ipv6.conf.default.addr_gen_mode=1")  # no link-local address
    space.ip("link add d0 type veth peer name d1")
    space.ip("link set d0 up")
    space.ip("link set d1 up")
    # The kernel's own work on a new link comes a moment later (net/core/link_watch.c).
    wait_until(lambda: [link["operstate"] for link in space.see("link show")][1:] == ["UP", "UP"])


def switch_ipv6_off(space):
    for name in ("all", "default"):
        space.run("sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")


def refused(space, function, *arguments, **named):
    """Return the NetlinkError that the call raises."""
    with pytest.raises(NetlinkError) as caught:
        space.call(function, *arguments, **named)
    return caught.value


def explained(error):
    """Return the explanation at the end of an error's text."""
    return str(error).rpartition(" (")[2].removesuffix(")")


def seen_addresses(space):
    """Return what `ip address` shows, in the form of netlink.addresses()."""
    family = {"inet": "ipv4", "inet6": "ipv6"}
    return {
        Address(family[a["family"]], a["local"], a["prefixlen"], link["ifname"], link["ifindex"])
        for link in space.see("address show")
        for a in link["addr_info"]
    }

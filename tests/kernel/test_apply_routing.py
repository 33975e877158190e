"""Routes and addresses beside the rules: they come, change and go with them (SPEC section 3)."""

from __future__ import annotations

from tests.support.applying import BACKENDS, every_backend
from tests.support.saved import normalise_save

from ..support.scratch import KERNEL, Scratch

pytestmark = KERNEL


@every_backend
def test_tproxy_twice_leaves_one_rule_and_one_route(backend: str) -> None:
    options, _ = BACKENDS[backend]
    arguments = [*options, "-m", "TPROXY", "--dual-stack"]
    with Scratch(addresses=True) as scratch:
        before = scratch.network()
        for more in ([], [], ["--force-apply"], ["--reconcile"]):
            scratch.apply(*arguments, *more)
            for option in ("-4", "-6"):
                rules = scratch.ip(option, "rule", "show").splitlines()
                assert len([line for line in rules if "fwmark 0x539 lookup 133" in line]) == 1
                routes = scratch.ip(option, "route", "show", "table", "133").splitlines()
                assert len(routes) == 1
                assert routes[0].startswith("local default dev lo")
        scratch.apply("cleanup")
        assert scratch.network() == before


@every_backend
def test_tproxy_to_redirect_to_tproxy(backend: str) -> None:
    options, variant = BACKENDS[backend]
    with Scratch(addresses=True) as scratch:
        empty = scratch.network()
        scratch.apply(*options, "-m", "TPROXY")
        tproxy = scratch.state()
        scratch.apply(*options, "--reconcile")
        assert scratch.network() == empty
        assert set(normalise_save(scratch.save(variant, "ipv4"))) == {"nat"}
        scratch.apply(*options, "-m", "TPROXY", "--reconcile")
        assert {**scratch.state(), "nft": ""} == {**tproxy, "nft": ""}
        scratch.apply(*options, "-m", "TPROXY", "-t", "1400", "-r", "140", "--reconcile")
        rules = scratch.ip("rule", "show")
        assert "fwmark 0x578 lookup 140" in rules
        assert "133" not in rules
        assert scratch.ip("route", "show", "table", "133") == ""


def test_ipv6_switched_on_and_off() -> None:
    """A family that is no longer on goes away, its address with it."""
    with Scratch(addresses=True) as scratch:
        before = scratch.network()
        scratch.apply()
        only_ipv4 = scratch.save("legacy", "ipv4")
        scratch.apply("--dual-stack", "--reconcile")
        assert normalise_save(scratch.save("legacy", "ipv6")) != {}
        assert scratch.network() != before
        assert scratch.tool().returncode == 3
        scratch.apply("--reconcile")
        assert normalise_save(scratch.save("legacy", "ipv6")) == {}
        assert scratch.save("legacy", "ipv4") == only_ipv4
        assert scratch.network() == before


def test_ipv6_switched_off_in_the_kernel_is_no_error_as_long_as_it_is_off_here() -> None:
    with Scratch() as scratch:
        scratch.check("sysctl", "-q", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.lo.disable_ipv6=1")
        for arguments in (
            ["-m", "TPROXY"],
            ["--reconcile", "--redirect-dns", "--capture-all-dns"],
            ["cleanup"],
        ):
            scratch.apply(*arguments)

"""The library from rules to a machine: prepare and apply, and what the commands do with a machine."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from istio_iptables import Facts, Plan, Ruleset, SettingsError, build, configure, prepare
from istio_iptables.cli import handlers
from istio_iptables.cli.context import Context as RealContext
from istio_iptables.cli.log import log
from istio_iptables.errors import Differs
from istio_iptables.rules.model import Jump, Rule
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.testing import FakeKernel
from tests.support.cases import all_cases

machine: Any = FakeKernel()


# --- prepare, apply ---------------------------------------------------------------------------


def test_the_library_in_one_breath():
    wanted = build(configure(inbound_ports="*", environment=Facts()))
    with FakeKernel() as machine:
        first = machine.plan(wanted)
        assert isinstance(first.plan, Plan)
        assert [difference.title for difference in first.differences] == ["ipv4 nat (iptables-legacy)"]
        assert first.choice.backend == "libiptc"
        assert machine.tables == {}, "preparing changes nothing"
        first.apply()
        assert machine.plan(wanted).plan.actions == ()
        assert len(machine.plan(wanted, rewrite=True).plan.actions) == 1
        clean = machine.plan(Ruleset())
        assert clean.choice.backend == "", "cleaning up chooses no backend"
        clean.apply()
        assert machine.plan(Ruleset()).plan.actions == ()


def test_prepare_is_plan_as_a_function():
    wanted = build(configure(environment=Facts()))
    with FakeKernel() as machine:
        assert prepare(machine, wanted).plan == machine.plan(wanted).plan
        assert prepare(machine, wanted, rewrite=True).plan == machine.plan(wanted, rewrite=True).plan


def test_what_a_backend_cannot_load_is_refused_before_anything_is_touched():
    many = configure(owner_groups=list(range(64)), environment=Facts())
    with FakeKernel(forced_variant="nft") as machine:
        with pytest.raises(SettingsError, match=r"^variable ISTIO_OUTBOUND_OWNER_GROUPS: .* \d+ matches"):
            machine.plan(build(many)).apply()
        assert machine.attempted == []
    with FakeKernel() as machine:
        machine.plan(build(many)).apply()


def test_a_plan_is_applied_once():
    with FakeKernel() as machine:
        plan = machine.plan(build(configure(environment=Facts())))
        plan.apply()
        with pytest.raises(RuntimeError, match="prepare another one"):
            plan.apply()


def test_a_plan_is_not_applied_after_the_locks_are_gone():
    with FakeKernel() as machine:
        plan = machine.plan(build(configure(environment=Facts())))
    with pytest.raises(RuntimeError, match="use `with FakeKernel"):
        plan.apply()
    assert machine.tables == {}


def test_cleanup_says_which_chain_another_program_still_needs():
    with FakeKernel() as machine:
        machine.plan(build(configure(environment=Facts()))).apply()
        machine.add_rules("iptables-legacy", "ipv4", "nat", "MINE", Rule((), Jump("ISTIO_REDIRECT")))
        clean = machine.plan(Ruleset())
        (left,) = clean.plan.left_behind
        assert left.startswith("chain ISTIO_REDIRECT (ipv4 nat, iptables-legacy) stays, empty")
        clean.apply()
    with FakeKernel() as machine:
        assert machine.plan(build(configure(environment=Facts()))).plan.left_behind == ()


def test_a_machine_stays_in_its_process():
    with FakeKernel() as machine, pytest.raises(TypeError, match="make one there"):
        pickle.dumps(machine.plan(Ruleset()))


def test_names_that_are_no_texts_are_mistakes():
    with pytest.raises(SettingsError, match=r"^1: unknown setting$"):
        configure({1: 2})  # type: ignore[dict-item]


# --- what the commands do with a machine ------------------------------------------------------


class Context(RealContext):
    """The context of a run on a machine that is not there."""

    def __init__(self, machine: FakeKernel, *arguments: str) -> None:
        super().__init__(read_arguments(arguments), {})
        self._facts = Facts()  # type: ignore[assignment]
        self._machine = machine
        self.writes: bool | None = None

    def machine(self, *, writing: bool) -> Any:
        self.writes = writing
        return self._machine


def state(machine: FakeKernel) -> list[str]:
    return machine.lines()


def test_apply(capsys: pytest.CaptureFixture[str]):
    machine = FakeKernel()
    context = Context(machine)
    assert handlers.apply(context) == 0
    assert context.writes is True
    there = state(machine)
    assert "iptables-legacy ipv4 nat: -A OUTPUT -j ISTIO_OUTPUT" in there
    said = capsys.readouterr()
    assert said.out == ""
    for line in (
        "backend libiptc: the kernel has the legacy tables, and no rules are in place",
        "planned: ipv4 nat (iptables-legacy): ",
        "done: ",
    ):
        assert f"\tinfo\t{line}" in said.err

    assert handlers.apply(Context(machine)) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert handlers.apply(Context(machine, "--force-apply")) == 0
    assert "\tinfo\tdone: " in capsys.readouterr().err
    assert state(machine) == there


def test_apply_over_rules_that_differ(capsys: pytest.CaptureFixture[str]):
    machine = FakeKernel()
    handlers.apply(Context(machine))
    there = state(machine)
    for force in ([], ["--force-apply"]):
        with pytest.raises(Differs, match="--reconcile replaces them") as caught:
            handlers.apply(Context(machine, "-p", "1", *force))
        assert caught.value.exit_code == 3
        assert "+-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 1\n" in capsys.readouterr().out
        assert state(machine) == there
    assert handlers.apply(Context(machine, "-p", "1", "--reconcile")) == 0
    assert "iptables-legacy ipv4 nat: -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 1" in state(machine)


def test_diff(capsys: pytest.CaptureFixture[str]):
    machine = FakeKernel()
    handlers.apply(Context(machine))
    there = state(machine)
    context = Context(machine, "diff")
    assert handlers.diff(context) == 0
    assert context.writes is False
    said = capsys.readouterr()
    assert said.out == ""
    assert "no difference" in said.err
    assert handlers.diff(Context(machine, "diff", "-p1")) == 3
    assert "--A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001\n" in capsys.readouterr().out
    assert handlers.diff(Context(machine, "diff", "-p1", "--json")) == 3
    assert json.loads(capsys.readouterr().out)["differs"] is True
    assert handlers.diff(Context(machine, "diff", "--json")) == 0
    assert json.loads(capsys.readouterr().out) == {"differs": False, "parts": []}
    assert state(machine) == there


def test_cleanup(capsys: pytest.CaptureFixture[str]):
    machine = FakeKernel()
    handlers.apply(Context(machine))
    there = state(machine)
    context = Context(machine, "cleanup", "--dry-run")
    assert handlers.cleanup(context) == 0
    assert context.writes is False
    shown = capsys.readouterr().out
    assert (
        "# ipv4 nat (iptables-legacy): remove rules: for iptables-legacy-restore --noflush\n*nat\n" in shown
    )
    assert "-D OUTPUT -j ISTIO_OUTPUT\n" in shown
    assert state(machine) == there
    context = Context(machine, "cleanup", "-p", "1")
    assert handlers.cleanup(context) == 0
    assert context.writes is True
    assert state(machine) == []
    assert handlers.cleanup(Context(machine, "cleanup")) == 0
    assert "nothing of istio-iptables is in place" in capsys.readouterr().err
    assert handlers.diff(Context(machine, "diff")) == 3


def test_the_state_before_and_after_is_logged_at_debug_level(capsys: pytest.CaptureFixture[str]):
    machine = FakeKernel()
    handlers.apply(Context(machine))
    assert "\tdebug\t" not in capsys.readouterr().err
    log.configure([("default", "debug")])
    try:
        handlers.apply(Context(machine, "-p", "1", "--reconcile"))
    finally:
        log.configure([("default", "info")])
    said = capsys.readouterr().err
    assert (
        "debug\tbefore: iptables-legacy ipv4 nat: -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001\n"
        in said
    )
    assert (
        "debug\tafter: iptables-legacy ipv4 nat: -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 1\n" in said
    )


@all_cases(
    ("arguments", "handler"),
    [
        ([], handlers.apply),
        (["apply"], handlers.apply),
        (["validate"], handlers.validate),
        (["validate", "--cleanup-only"], handlers.validate),
        (["--run-validation"], handlers.apply),
        (["cleanup"], handlers.cleanup),
        (["--cleanup-only"], handlers.cleanup),
        (["apply", "--cleanup-only"], handlers.cleanup),
        (["diff", "--cleanup-only"], handlers.diff),
        (["render", "--cleanup-only"], handlers.print_rules),
    ],
)
def test_which_command_does_what(arguments: list[str], handler: object):
    context = Context(FakeKernel(), *arguments)
    assert handlers._handler(context) is handler

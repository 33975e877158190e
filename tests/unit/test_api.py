"""The library: what istio_iptables/__init__.py promises, and the examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
import json
from types import ModuleType
from typing import Any

import pytest

import istio_iptables
from istio_iptables import (
    Config,
    Facts,
    Plan,
    Prepared,
    Ruleset,
    SettingsError,
    build,
    configure,
    prepare,
    render,
)
from istio_iptables.change.actions import EditTable, Live
from istio_iptables.change.plan import make_plan
from istio_iptables.cli import handlers
from istio_iptables.cli.context import Context as RealContext
from istio_iptables.cli.log import log
from istio_iptables.errors import Differs, IstioIptablesError, KernelError
from istio_iptables.formats.difference import state_lines
from istio_iptables.rules.edit import TableEdit, apply_to
from istio_iptables.rules.model import (
    Chain,
    ConnectionMark,
    Jump,
    Mark,
    PortRange,
    RestoreMark,
    Rule,
    SaveMark,
    Table,
)
from istio_iptables.settings.go_flags import read_arguments


@pytest.mark.parametrize(
    "name",
    ["istio_iptables", "istio_iptables.api", "istio_iptables.startup.record", "istio_iptables.rules.model"],
)
def test_examples(name: str):
    results = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert results.failed == 0
    assert results.attempted > 0 or name == "istio_iptables"


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", istio_iptables.__all__)
def test_every_name_can_be_imported(name: str):
    value = getattr(istio_iptables, name)
    assert value is getattr(istio_iptables, name)
    assert value.__doc__
    assert value.__module__.startswith("istio_iptables.")
    exec(f"from istio_iptables import {name}")


def test_names_are_sorted_and_complete():
    assert sorted(istio_iptables.__all__) == list(istio_iptables.__all__)
    where = vars(istio_iptables)["_WHERE"]
    assert set(where) == set(istio_iptables.__all__)


def test_there_are_no_other_names():
    with pytest.raises(AttributeError, match="module 'istio_iptables' has no attribute 'nonsense'"):
        istio_iptables.nonsense  # noqa: B018
    with pytest.raises(ImportError):
        exec("from istio_iptables import nonsense")
    assert not hasattr(istio_iptables, "__wrapped__")


def test_names_mean_what_they_say():
    from istio_iptables.kernel import namespace

    assert istio_iptables.enter_network_namespace is namespace.enter
    assert isinstance(istio_iptables, ModuleType)
    assert istio_iptables.__version__.count(".") == 2


def test_errors_have_exit_codes():
    codes = {error: error.exit_code for error in (IstioIptablesError, KernelError, SettingsError, Differs)}
    assert codes == {IstioIptablesError: 1, KernelError: 1, SettingsError: 2, Differs: 3}
    assert all(issubclass(error, IstioIptablesError) for error in codes)
    assert str(KernelError("cause", "remedy")) == "cause\n  what to do: remedy"
    assert str(KernelError("cause")) == "cause"
    assert str(SettingsError(["one", "two"])) == "one\ntwo"


# --- configure, build, render -----------------------------------------------------------------


def test_configure():
    config = configure({"istio-inbound-ports": "80", "ISTIO_OUTBOUND_OWNER_GROUPS": "5"}, environment=Facts())
    assert isinstance(config, Config)
    assert str(config.inbound_ports) == "(PortRange(first=80, last=80),)"
    assert config.owner_groups == (5,)
    assert configure(environment=Facts()) == configure({}, environment=Facts())


def test_configure_takes_python_s_own_values():
    texts = {
        "istio-inbound-ports": "80,443,8000:8100",
        "drop-invalid": "true",
        "envoy-port": "1",
        "proxy-uid": "",
    }
    values = {
        "istio-inbound-ports": [80, "443", "8000:8100"],
        "drop-invalid": True,
        "envoy-port": 1,
        "proxy-uid": (),
    }
    assert configure(values, environment=Facts()) == configure(texts, environment=Facts())
    with pytest.raises(SettingsError) as caught:
        configure(
            {"envoy-port": 0, "drop-invalid": 2, "proxy-uid": {}, "proxy-gid": [[1]]}, environment=Facts()
        )
    assert len(caught.value.mistakes) == 4


def test_configure_reads_this_machine_by_default():
    assert configure().outbound_port == 15001


def test_configure_does_not_read_variables(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ENVOY_PORT", "1")
    assert configure(environment=Facts()).outbound_port == 15001


def test_configure_reports_all_mistakes():
    with pytest.raises(SettingsError) as caught:
        configure({"envoy-prot": "1", "envoy-port": "0", "dry-run": "yes", "p": "1"}, environment=Facts())
    assert [mistake.split(":")[0] for mistake in caught.value.mistakes] == [
        "envoy-prot",
        "p",
        "envoy-port",
        "dry-run",
    ]
    assert "did you mean envoy-port?" in caught.value.mistakes[0]


def test_a_config_is_immutable():
    config = configure(environment=Facts())
    with pytest.raises(AttributeError, match="immutable"):
        config.outbound_port = 1  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        del config.outbound_port
    assert config.replace(outbound_port=1).outbound_port == 1
    assert config.outbound_port == 15001
    assert hash(config) == hash(config.replace())
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'nonsense'"):
        config.replace(nonsense=1)
    with pytest.raises(TypeError, match=r"missing [0-9]+ required .*argument"):
        Config()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"takes .*3"):
        Table("ipv4", "nat", (), ())  # type: ignore[call-arg]


def test_records_of_different_kinds_are_never_equal():
    assert SaveMark() == SaveMark()
    assert SaveMark() != RestoreMark()
    assert Mark(1) != ConnectionMark(1)
    assert len({Mark(1), Mark(1, 0xFFFFFFFF), ConnectionMark(1), Mark(1, negated=True)}) == 3
    assert PortRange(1, 2) != (1, 2)
    assert repr(Mark(1)) == "Mark(value=1, mask=4294967295, negated=False)"


def test_build_and_render():
    ruleset = build(configure(environment=Facts()))
    assert isinstance(ruleset, Ruleset)
    assert render(ruleset).startswith("*nat\n")
    assert render(ruleset, "commands").startswith("#!/bin/sh\n")
    assert render(ruleset, "json").startswith("{\n")
    assert render(ruleset, families=["ipv6"]) == ""


# --- prepare, apply ---------------------------------------------------------------------------


class FakeMachine:
    """What `prepare` needs of a Machine."""

    def __init__(self) -> None:
        self.tables: dict[tuple[str, str], Table] = {}
        self.refuses = ""
        self.chosen = 0

    def __enter__(self) -> FakeMachine:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, wanted: Ruleset) -> Live:
        return Live({"iptables-legacy": tuple(self.tables.values()), "iptables-nft": ()})

    def plan(self, wanted: Ruleset, *, rewrite: bool = False) -> Prepared:
        self.chosen += bool(wanted.tables)
        live = self.read(wanted)
        plan = make_plan(live, wanted, "iptables-legacy", rewrite=rewrite)
        return Prepared(self, live, wanted, Choice(), plan)  # type: ignore[arg-type]  # it quacks

    def confirm(self, choice: object) -> object:
        return choice

    def refusal(self, action: object) -> str:
        return self.refuses

    def check(self, action: object) -> None:
        pass

    def do(self, action: EditTable) -> None:
        edit: TableEdit = action.edit
        before = self.tables.get((edit.family, edit.table), Table(edit.family, edit.table))
        self.tables[edit.family, edit.table] = apply_to(before, edit)


class Choice:
    location, backend, why = "iptables-legacy", "fake", "there is no other"


def prepared(machine: FakeMachine, wanted: Ruleset, *, rewrite: bool = False) -> Prepared:
    return prepare(machine, wanted, rewrite=rewrite)  # type: ignore[arg-type]  # it quacks


def test_the_library_in_one_breath():
    wanted = build(configure({"istio-inbound-ports": "*"}, environment=Facts()))
    with FakeMachine() as machine:
        first = prepared(machine, wanted)
        assert isinstance(first.plan, Plan)
        assert [difference.title for difference in first.differences] == ["ipv4 nat (iptables-legacy)"]
        assert machine.tables == {}, "preparing changes nothing"
        first.apply()
        assert prepared(machine, wanted).plan.actions == ()
        assert len(prepared(machine, wanted, rewrite=True).plan.actions) == 1
        assert machine.chosen == 3
        clean = prepared(machine, Ruleset())
        assert machine.chosen == 3, "cleaning up chooses no backend"
        clean.apply()
        assert prepared(machine, Ruleset()).plan.actions == ()


def test_what_a_backend_cannot_load_is_refused_before_anything_is_touched():
    machine = FakeMachine()
    machine.refuses = "iptables-nft-restore cannot load a rule of 64 matches"
    with pytest.raises(SettingsError, match=r"^variable ISTIO_OUTBOUND_OWNER_GROUPS: .* 64 matches"):
        prepared(machine, build(configure(environment=Facts()))).apply()
    assert machine.tables == {}


def test_a_plan_is_applied_once():
    machine = FakeMachine()
    plan = prepared(machine, build(configure(environment=Facts())))
    plan.apply()
    with pytest.raises(RuntimeError, match="prepare another one"):
        plan.apply()


def test_cleanup_says_which_chain_somebody_else_still_needs():
    machine = FakeMachine()
    with machine:
        prepared(machine, build(configure(environment=Facts()))).apply()
        table = machine.tables["ipv4", "nat"]
        machine.tables["ipv4", "nat"] = table.replace(
            chains=(*table.chains, Chain("MINE", (Rule((), Jump("ISTIO_REDIRECT")),)))
        )
        clean = prepared(machine, Ruleset())
        (left,) = clean.plan.left_behind
        assert left.startswith("chain ISTIO_REDIRECT (ipv4 nat, iptables-legacy) stays, empty")
        clean.apply()
    assert prepared(FakeMachine(), build(configure(environment=Facts()))).plan.left_behind == ()


def test_names_that_are_no_texts_are_mistakes():
    with pytest.raises(SettingsError, match=r"^1: unknown setting$"):
        configure({1: 2})  # type: ignore[dict-item]


# --- what the commands do with a machine ------------------------------------------------------


class Context(RealContext):
    """The context of a run on a machine that is not there."""

    def __init__(self, machine: FakeMachine, *arguments: str) -> None:
        super().__init__(read_arguments(arguments), {})
        self._facts = Facts()  # type: ignore[assignment]
        self._machine = machine
        self.writes: bool | None = None

    def machine(self, *, writing: bool) -> Any:
        self.writes = writing
        return self._machine


def state(machine: FakeMachine) -> list[str]:
    return list(state_lines(machine.read(Ruleset())))


def test_apply(capsys: pytest.CaptureFixture[str]):
    machine = FakeMachine()
    context = Context(machine)
    assert handlers.apply(context) == 0
    assert context.writes is True
    there = state(machine)
    assert "iptables-legacy ipv4 nat: -A OUTPUT -j ISTIO_OUTPUT" in there
    said = capsys.readouterr()
    assert said.out == ""
    for line in ("backend fake: there is no other", "planned: ipv4 nat (iptables-legacy): ", "done: "):
        assert f"\tinfo\t{line}" in said.err

    assert handlers.apply(Context(machine)) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert handlers.apply(Context(machine, "--force-apply")) == 0
    assert "\tinfo\tdone: " in capsys.readouterr().err
    assert state(machine) == there


def test_apply_over_rules_that_differ(capsys: pytest.CaptureFixture[str]):
    machine = FakeMachine()
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
    machine = FakeMachine()
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
    machine = FakeMachine()
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
    machine = FakeMachine()
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


@pytest.mark.parametrize(
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
    context = Context(FakeMachine(), *arguments)
    assert handlers._handler(context) is handler

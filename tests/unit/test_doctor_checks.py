"""doctor: what each check makes of facts that are given; tests/kernel/test_doctor.py makes them for real."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from istio_iptables.change.foreign import Base, Neighbour, Step
from istio_iptables.doctor import examination
from istio_iptables.doctor.checks import kernel, rules
from istio_iptables.doctor.checks.programs import version_of
from istio_iptables.doctor.examination import CHECKS
from istio_iptables.doctor.features import Evidence, Feature, parts_of_rules
from istio_iptables.doctor.model import FAIL, OK, WARN, Answer, Result
from istio_iptables.errors import KernelError, SettingsError
from istio_iptables.rules.model import (
    ForeignTarget,
    InInterface,
    Rule,
)
from tests.support import doctor_cases_of_place, doctor_cases_of_process
from tests.support.cases import all_cases
from tests.support.doctor_facts import (
    FULL,
    LEGACY,
    NATIVE,
    NFT,
    needs,
)

CASES = [*doctor_cases_of_process.CASES, *doctor_cases_of_place.CASES]


@all_cases(
    ("name", "answer", "status", "words"),
    CASES,
    ids=[f"{case[0]}-{case[2]}-{n}" for n, case in enumerate(CASES)],
)
def test_an_answer(name: str, answer: Answer, status: str, words: str) -> None:
    assert answer.status == status, answer
    assert words in " ".join((answer.finding, answer.remedy, *answer.details))
    if status == FAIL:
        assert answer.remedy, "what fails has a remedy"


def test_every_check_has_its_cases() -> None:
    """Each can be OK, and something else too."""
    found = {name: {case[2] for case in CASES if case[0] == name} for name, *_ in CASES}
    assert found.keys() == {check.name for check in CHECKS}
    assert all(OK in statuses and len(statuses) > 1 for statuses in found.values())


# --- what the kernel has ----------------------------------------------------------------------

OWNER = Feature("match owner", "xt_owner", "NETFILTER_XT_MATCH_OWNER", ("matches", "owner"))


@all_cases(
    ("evidence", "presence"),
    [
        (Evidence("6.1"), "unknown"),
        (Evidence("6.1", listed={("ipv4", "matches"): frozenset(("owner",))}), "unknown"),
        (
            Evidence("6.1", {(f, "matches"): frozenset(("owner",)) for f in ("ipv4", "ipv6")}, options={}),
            "there",
        ),
        (Evidence("6.1", loaded=frozenset(("xt_owner",)), options={}), "there"),
        (Evidence("6.1", loaded=frozenset(("xt_mark",))), "unknown"),
        (Evidence("6.1", options={"NETFILTER_XT_MATCH_OWNER": "y"}), "there"),
        (Evidence("6.1", options={"NETFILTER_XT_MATCH_OWNER": "m"}), "installed"),
        (Evidence("6.1", options={}), "absent"),
        (Evidence("6.1", modules={"xt_owner": True}), "there"),
        (Evidence("6.1", modules={"xt_owner": False}), "installed"),
        (Evidence("6.1", modules={}), "absent"),
    ],
)
def test_what_tells_of_a_part_of_the_kernel(evidence: Evidence, presence: str) -> None:
    assert evidence.presence(OWNER) == presence


def test_a_part_that_is_listed_for_the_family_in_question_is_there() -> None:
    evidence = Evidence("6.1", {("ipv4", "matches"): frozenset(("owner",))}, options={})
    assert (evidence.presence(OWNER, ("ipv4",)), evidence.presence(OWNER, ("ipv6",))) == ("there", "absent")


def test_a_module_that_is_not_loaded_is_no_obstacle() -> None:
    evidence = FULL.replace(options={**dict(FULL.options or {}), "NETFILTER_XT_MATCH_OWNER": "m"})
    answer = kernel.matches_and_targets(needs(), evidence)
    assert answer.status == OK
    assert "not loaded yet: match owner (xt_owner)" in answer.details[0]


def test_the_parts_are_those_of_the_settings() -> None:
    def modules(location: Any, **more: Any) -> set[str]:
        return {part.module for part, _ in parts_of_rules(needs(location, **more), location)}

    plain = {"xt_tcpudp", "xt_REDIRECT", "xt_owner", "nf_conntrack", "nf_nat"}
    assert modules(LEGACY) == modules(NFT) == plain
    everything: dict[str, Any] = {
        "interception_mode": "TPROXY",
        "redirect_dns": True,
        "capture_all_dns": True,
        "drop_invalid": True,
    }
    more = {"xt_TPROXY", "xt_CT", "xt_conntrack", "xt_mark", "xt_connmark", "xt_multiport", "xt_comment"}
    assert modules(LEGACY, **everything) == plain | more
    assert modules(NATIVE, **everything) == {"nft_redir", "nft_tproxy", "nft_ct", "nf_conntrack", "nf_nat"}


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("nftables v1.0.6 (Lester Gooch #5)", (1, 0, 6)),
        ("iptables-restore v1.8.11 (nf_tables)", (1, 8, 11)),
        ("nftables v1.1 (x)", (1, 1)),
        ("no version here", ()),
        ("", ()),
    ],
)
def test_versions_that_programs_print(printed: str, version: tuple[int, ...]) -> None:
    assert version_of(printed) == version


# --- foreign rules that send packets to 127.0.0.0/8 -------------------------------------------


def of_foreign(*bases: Base, **chains: tuple[Step, ...]) -> tuple[tuple[str, str], ...]:
    return rules.to_loopback([Neighbour("table ip x", "ipv4", "nat", bases, tuple(chains.items()))])


def test_rules_to_the_loopback_network_are_found_through_chains() -> None:
    dnat = Step(
        Rule((), ForeignTarget(("-j", "DNAT", "--to-destination", "127.0.0.1:80"))),
        "translate",
        (),
        "127.0.0.1:80",
    )
    calls = Step("jump a", "jump", chains=("a",))
    again = Step("jump a", "jump", chains=("a",))
    found = of_foreign(Base("pre", "PREROUTING", None, (calls,)), a=(again, dnat), unused=(dnat,))
    assert found == (("a: -j DNAT --to-destination 127.0.0.1:80", "table ip x"),)


@pytest.mark.parametrize(
    ("hook", "step"),
    [
        ("OUTPUT", Step("dnat", "translate", (), "127.0.0.1:15053")),
        ("PREROUTING", Step("dnat", "translate", (), "172.17.0.2:80")),
        ("PREROUTING", Step("dnat", "translate", (InInterface("lo"),), "127.0.0.1:80")),
        ("PREROUTING", Step("redirect", "translate", (), "port 80")),
    ],
)
def test_rules_that_need_no_route_localnet(hook: str, step: Step) -> None:
    assert of_foreign(Base("c", hook, None, (step,))) == ()


# --- how the checks are made ------------------------------------------------------------------


def examined(monkeypatch: pytest.MonkeyPatch, examine: Any, **here: Any) -> Result:
    check = examination.Check("a-check", examine, of_namespace=True)
    monkeypatch.setattr(examination, "CHECKS", (check,))
    operation = SimpleNamespace(dry_run=here.pop("dry_run", False))
    (result,) = examination.examine(
        SimpleNamespace(**{"writes": True, "not_entered": None, "operation": operation, **here})  # type: ignore[arg-type]
    )
    return result


@pytest.mark.parametrize(
    ("error", "finding", "remedy"),
    [
        (KernelError("no", "do"), "could not be checked: no", "do"),
        (FileNotFoundError(2, "No such file", "/a"), "could not be checked: /a: No such file", ""),
        (OSError("odd"), "could not be checked: odd", ""),
        (SettingsError(["a: wrong"]), "could not be checked: the settings cannot be used here: a: wrong", ""),
        (
            ValueError("x\ny"),
            "could not be checked: unexpected ValueError x y: bug in istio-iptables",
            "please report it",
        ),
    ],
)
def test_what_keeps_a_check_from_being_made_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, error: Exception, finding: str, remedy: str
) -> None:
    def examine(_: object) -> Answer:
        raise error

    result = examined(monkeypatch, examine)
    assert (result.status, result.finding, result.remedy) == (WARN, finding, remedy)
    assert result.anchor == "docs/doctor.md#a-check"


def test_a_run_that_leaves_the_rules_alone_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    dry = examined(monkeypatch, lambda _: Answer(FAIL, "x"), writes=False, dry_run=True)
    assert (dry.status, dry.finding) == (OK, "not needed: --dry-run leaves the rules alone")
    skipped = examined(monkeypatch, lambda _: Answer(FAIL, "x"), writes=False)
    assert (skipped.status, skipped.finding) == (OK, "not needed: --skip-rule-apply leaves the rules alone")


def test_a_namespace_that_was_not_entered_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    result = examined(monkeypatch, lambda _: Answer(OK, "x"), not_entered=KernelError("no"))
    assert (result.status, result.finding.partition(":")[0]) == (WARN, "could not be checked")

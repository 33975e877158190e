"""docs/doctor.md: a section for each check, each with what it checks, why it matters and what to do."""

from __future__ import annotations

import re

from istio_iptables.cni.node.checks import CHECKS as OF_NODE
from istio_iptables.doctor.examination import CHECKS
from istio_iptables.doctor.model import PAGE
from tests.support.cases import all_cases
from tests.support.pages import ROOT

SECTIONS = re.split(r"^## ", (ROOT / PAGE).read_text(), flags=re.MULTILINE)[1:]
NAMES = [check.name for check in CHECKS] + [check.name for check in OF_NODE]


def test_the_page_has_a_section_for_each_check_and_no_other_in_their_order() -> None:
    assert [section.partition("\n")[0] for section in SECTIONS] == NAMES


@all_cases("section", SECTIONS, ids=NAMES)
def test_a_section_says_what_is_checked_why_it_matters_and_what_to_do(section: str) -> None:
    parts = re.findall(r"^- \*\*(.*?):\*\* \S", section, re.MULTILINE)
    assert parts == ["What it checks", "Why it matters", "What to do"]


@all_cases("name", NAMES)
def test_a_name_is_its_own_anchor(name: str) -> None:
    """GitHub makes the anchor of a heading in lower case, with hyphens for blanks."""
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)


def test_names_are_given_once() -> None:
    assert len(set(NAMES)) == len(NAMES)

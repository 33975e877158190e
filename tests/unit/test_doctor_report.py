"""doctor: its report, as text and as JSON."""

from __future__ import annotations

import json

from istio_iptables.doctor.model import FAIL, OK, WARN, Result
from istio_iptables.doctor.report import failed, json_text, text

RESULTS = (
    Result("a", OK, "good", details=("more",)),
    Result("longer-name", FAIL, "broken", "mend it"),
    Result("b", WARN, "doubtful", "mend it", ("why",)),
    Result("c", WARN, "could not be checked: x"),
    Result("d", WARN, "could not be checked: x"),
)

PRINTED = """\
OK    a            good
      more
FAIL  longer-name  broken
      what to do: mend it
      see docs/doctor.md#longer-name
WARN  b            doubtful
      why
      what to do: as for longer-name
WARN  c            could not be checked: x
      see docs/doctor.md#c
WARN  d            could not be checked: x
5 checks: 1 FAIL, 3 WARN, 1 OK
"""


def test_a_line_for_each_check_and_a_count() -> None:
    assert text(RESULTS) == PRINTED


def test_colour_changes_nothing_else() -> None:
    coloured = text(RESULTS, colour=True)
    for status, number in ((OK, 32), (WARN, 33), (FAIL, 31)):
        shown = f"\033[{number}m{status.ljust(4)}\033[0m"
        assert shown in coloured
        coloured = coloured.replace(shown, status.ljust(4))
    assert coloured == PRINTED


def test_json_has_the_same_keys_for_every_check() -> None:
    document = json.loads(json_text(RESULTS))
    assert document["failed"] is True
    assert list(document) == ["failed", "checks"]
    assert {tuple(check) for check in document["checks"]} == {
        ("name", "status", "finding", "remedy", "details", "anchor")
    }
    assert document["checks"][1] == {
        "name": "longer-name",
        "status": "FAIL",
        "finding": "broken",
        "remedy": "mend it",
        "details": [],
        "anchor": "docs/doctor.md#longer-name",
    }


def test_a_warning_is_no_failure() -> None:
    assert failed(RESULTS)
    assert not failed(result for result in RESULTS if result.status != FAIL)
    assert json.loads(json_text(()))["failed"] is False

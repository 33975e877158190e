"""prove --dead: rules that no packet reaches, and which earlier rules take their packets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.proving import GENERATED, OWN, command

OUTPUT = ":OUTPUT ACCEPT [0:0]\n:PREROUTING ACCEPT [0:0]\n"


def dead(tmp_path: Path, nat: str, before: str = "") -> dict[str, dict[str, Any]]:
    """What is dead of rules in nat, and of tables before it, by the text of the rule."""
    path = tmp_path / "rules.txt"
    path.write_text(f"{GENERATED}{before}*nat\n{OUTPUT}{nat}\nCOMMIT\n")
    ran = command("prove", "--dead", "--file", str(path), "--own", "10.0.0.2", "--json")
    assert ran.status in (0, 3), ran.errors
    found = {each["text"]: each for each in ran.document["dead"]}
    assert ran.status == (3 if found else 0)
    return found


def takers(found: dict[str, Any]) -> list[str]:
    return [each["text"] for each in found["taken_by"]]


def test_a_rule_is_taken_by_an_earlier_one(tmp_path: Path):
    wide, narrow = "-A OUTPUT -d 10.0.0.0/8 -p tcp -j ACCEPT", "-A OUTPUT -d 10.1.0.0/16 -p tcp -j ACCEPT"
    found = dead(tmp_path, f"{wide}\n{narrow}")
    assert list(found) == [narrow]
    assert (found[narrow]["why"], takers(found[narrow])) == ("taken", [wide])
    assert dead(tmp_path, f"{narrow}\n{wide}") == {}


def test_several_rules_may_take_it_together(tmp_path: Path):
    low, high = (
        "-A OUTPUT -p tcp -m tcp --dport 0:99 -j ACCEPT",
        "-A OUTPUT -p tcp -m tcp --dport 100 -j ACCEPT",
    )
    both = "-A OUTPUT -d 10.1.0.0/16 -p tcp -m tcp --dport 90:100 -j ACCEPT"
    found = dead(tmp_path, f"{low}\n{high}\n{both}")
    assert (list(found), takers(found[both])) == ([both], [low, high])


def test_a_rule_that_lets_packets_pass_takes_none(tmp_path: Path):
    marking = "-A OUTPUT -p tcp -j LOG\n-A OUTPUT -p tcp -j ACCEPT"
    assert dead(tmp_path, marking) == {}


def test_a_member_of_a_list_is_taken_by_the_members_before_it(tmp_path: Path):
    members = [f"-A OUTPUT -d 10.0.{number}.0/24 -j ACCEPT" for number in (1, 2, 3, 2, 4)]
    members += ["-A OUTPUT -d 10.0.2.0/23 -j ACCEPT", "-A OUTPUT -d 10.0.0.0/22 -j ACCEPT"]
    found = dead(tmp_path, "\n".join(members))
    # The fourth is the second again; the sixth is the second and the third; the seventh has more than these.
    assert sorted(each["number"] for each in found.values()) == [4, 6]
    assert [each["number"] for each in found[members[5]]["taken_by"]] == [2, 3]


def test_what_jumps_and_returns_does_not_take(tmp_path: Path):
    nat = "\n".join(
        [
            ":LOGGED - [0:0]",
            "-A OUTPUT -d 10.0.1.0/24 -j LOGGED",
            "-A OUTPUT -d 10.0.1.0/25 -j LOGGED",
            "-A LOGGED -p udp -j ACCEPT",
        ]
    )
    assert dead(tmp_path, nat) == {}
    takes_all = nat.replace("-A LOGGED -p udp", "-A LOGGED")
    assert list(dead(tmp_path, takes_all)) == ["-A OUTPUT -d 10.0.1.0/25 -j LOGGED"]


def test_a_rule_is_taken_before_its_chain_is_called(tmp_path: Path):
    first = "-A OUTPUT -p tcp -m tcp --dport 80 -j ACCEPT"
    inner = "-A INNER -p tcp -m tcp --dport 80 -j RETURN"
    nat = f":INNER - [0:0]\n{first}\n-A OUTPUT -p tcp -j INNER\n{inner}\n-A INNER -p tcp -j ACCEPT"
    found = dead(tmp_path, nat)
    assert (list(found), takers(found[inner])) == ([inner], [first])


def test_a_rule_is_taken_by_a_table_before_its_own(tmp_path: Path):
    drops = "-A PREROUTING -p tcp -m tcp --dport 80 -j DROP"
    rule = "-A PREROUTING -p tcp -m tcp --dport 80 -j ACCEPT"
    found = dead(tmp_path, rule, f"*raw\n:PREROUTING ACCEPT [0:0]\n{drops}\nCOMMIT\n")
    assert (list(found), takers(found[rule])) == ([rule], [drops])


def test_a_rule_may_want_what_its_chain_never_gets(tmp_path: Path):
    inner = "-A INNER -p udp -j ACCEPT"
    found = dead(tmp_path, f":INNER - [0:0]\n-A OUTPUT -p tcp -j INNER\n{inner}")
    assert (list(found), found[inner]["why"], takers(found[inner])) == ([inner], "does not fit", [])


def test_a_chain_may_be_led_to_by_nothing(tmp_path: Path):
    inner = "-A INNER -p udp -j ACCEPT"
    found = dead(tmp_path, f":INNER - [0:0]\n{inner}")
    assert (list(found), found[inner]["why"]) == ([inner], "not led to")


def test_a_rule_that_depends_is_not_called_dead(tmp_path: Path):
    maybe = "-A OUTPUT -p tcp -m string --string x --algo bm -j ACCEPT"
    assert dead(tmp_path, f"{maybe}\n-A OUTPUT -p tcp -j ACCEPT") == {}


@pytest.mark.parametrize("options", [[], ["--native-nftables"]])
def test_of_the_rules_of_settings_the_second_owner_is_never_asked(options: list[str]):
    # UID and GID 1337: over lo, all but the first user has returned before the rules of the group.
    ran = command(*options, "prove", "--dead", OWN, "--json")
    assert ran.status == 3
    assert {each["why"] for each in ran.document["dead"]} == {"taken"}
    assert len(ran.document["dead"]) == 2


def test_the_text_says_how_many(tmp_path: Path):
    ran = command("-u", "1337", "-g", "1338", "prove", "--dead", OWN)
    assert ran.output.splitlines()[-1].endswith("rules are reached by no packet.")
    assert "no packet  rule " in ran.output
    assert "\ntaken by   rule " in ran.output

"""prove as a command: what it judges and prints, its exit codes; every packet can be pasted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import assert_refused, run
from tests.support.proving import GENERATED, OWN, command, dumped, statuses, verdict_of

BACKENDS: tuple[list[str], ...] = ([], ["--compact"], ["--native-nftables"])


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """What iptables-save prints of the rules of default settings."""
    path = tmp_path / "rules.txt"
    path.write_text(dumped())
    return path


def foreign(dump: Path, *rules: str) -> None:
    """Put rules of another program before ours in the table nat."""
    text = dump.read_text()
    lines = "".join(f"{rule}\n" for rule in rules)
    dump.write_text(text.replace("-A OUTPUT -j ISTIO_OUTPUT", f"{lines}-A OUTPUT -j ISTIO_OUTPUT"))


# --- properties -------------------------------------------------------------------------------


@pytest.mark.parametrize("options", BACKENDS, ids=str)
@pytest.mark.parametrize("mode", ["REDIRECT", "TPROXY"])
def test_the_rules_of_settings_are_proved_in_every_form(options: list[str], mode: str):
    ran = command("--dual-stack", "-m", mode, "-x", "10.1.0.0/16", *options, "prove", OWN)
    assert ran.status == 0, ran.output
    lines = ran.output.splitlines()
    assert lines[0].startswith("rules      of the settings (")
    assert lines[-1] == f"All {ran.output.count('PROVED')} properties are proved, for every packet."
    assert "outbound-captured" in ran.output


def test_every_property_has_its_sentence_with_the_settings_filled_in():
    ran = command("-p", "15101", "-x", "10.1.0.0/16", "prove", OWN)
    [line] = [line for line in ran.output.splitlines() if "outbound-captured" in line]
    assert line.startswith("PROVED")
    assert "15101" in line
    assert "10.1.0.0/16 is left alone (-x)" in ran.output


def test_a_foreign_rule_refutes_with_a_packet_that_trace_explains(dump: Path):
    foreign(dump, "-A OUTPUT -d 10.9.0.0/16 -p tcp -j ACCEPT")
    ran = command("prove", "--file", str(dump), "--json")
    assert ran.status == 3
    found = ran.document
    assert found["proved"] is False
    assert statuses(found)["outbound-captured"] == "REFUTED"
    assert statuses(found)["inbound-captured"] == "PROVED"
    [shown] = [each for each in found["refutations"] if "outbound-captured" in each["refutes"]]
    assert (shown["promised"], shown["found"]["code"]) == ({"code": "redirected", "to": "15001"}, "direct")
    assert shown["packet"]["destination"].startswith("10.9.")
    [rule] = shown["because_of"]
    assert (rule["foreign"], rule["chain"], rule["number"]) == (True, "OUTPUT", 1)
    assert "10.9.0.0/16" in rule["text"]
    assert verdict_of(shown["trace"]) == "direct"


def test_the_text_names_the_rule_and_has_the_command_to_paste(dump: Path):
    foreign(dump, "-A OUTPUT -d 10.9.0.0/16 -p tcp -j ACCEPT")
    ran = command("prove", "--file", str(dump))
    assert "REFUTED    outbound-captured, every-packet" in ran.output
    assert "(a rule of another program): -A OUTPUT -d 10.9.0.0/16 -p tcp -j ACCEPT" in ran.output
    lines = [line for line in ran.output.splitlines() if line.startswith("to see it  ")]
    assert lines
    assert {verdict_of(line.removeprefix("to see it  ")) for line in lines} == {"direct"}
    assert ran.output.splitlines()[-1].endswith("every-packet.")


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        ("-A OUTPUT -p icmp -j DNAT --to-destination 10.3.3.3", "translated 10.3.3.3"),
        ("-A OUTPUT -p sctp -m sctp --dport 9 -j DNAT --to-destination 10.3.3.3", "translated 10.3.3.3:9"),
        ("-A OUTPUT -p udp -m udp --dport 9999 -j REDIRECT --to-ports 9", "redirected 9"),
        ("-A OUTPUT -m mark --mark 0x5/0xf -j DNAT --to-destination 10.3.3.3", "translated 10.3.3.3:80"),
    ],
)
def test_packets_of_every_kind_can_be_pasted(dump: Path, rule: str, verdict: str):
    foreign(dump, rule)
    ran = command("prove", "--file", str(dump), "--json")
    assert ran.status == 3
    traces = [each["trace"] for each in ran.document["refutations"]]
    assert all(traces)
    assert verdict in {verdict_of(line) for line in traces}


def test_what_is_not_modelled_makes_it_depend_on_the_rule(dump: Path):
    foreign(dump, "-A OUTPUT -p tcp -m string --string x --algo bm -j ACCEPT")
    ran = command("prove", "--file", str(dump), "--json")
    assert ran.status == 3
    assert statuses(ran.document)["outbound-captured"] == "DEPENDS"
    assert "REFUTED" not in statuses(ran.document).values()
    shown = ran.document["refutations"][0]
    assert any("--string x" in about for about in shown["depends_on"])
    assert verdict_of(shown["trace"]) == "depends"
    assert "dependent on what is not modelled" in command("prove", "--file", str(dump)).output


def test_what_could_not_be_read_makes_everything_depend(dump: Path):
    dump.write_text(f"{dump.read_text()}hello, world\n")
    ran = command("prove", "--file", str(dump), "--json")
    assert ran.status == 3
    assert set(statuses(ran.document).values()) == {"DEPENDS"}
    assert any("hello, world" in line for line in ran.document["unread"])
    assert "dependent on what could not be read" in command("prove", "--file", str(dump)).output
    ran = command("prove", "--file", str(dump), "--same-as", str(dump))
    assert (ran.status, "depends on what could not be read" in ran.output) == (3, True)
    # The line that could not be read may be what the packet is missing.
    dump.write_text(dump.read_text().replace(":PREROUTING ACCEPT [0:0]\n", ""))
    ran = command("prove", "--file", str(dump), "--json")
    assert ran.document["refutations"]
    assert set(statuses(ran.document).values()) == {"DEPENDS"}


def test_without_our_rules_nothing_is_captured(tmp_path: Path):
    path = tmp_path / "rules.txt"
    path.write_text(f"{GENERATED}*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n")
    ran = command("prove", "--file", str(path), "--json")
    assert ran.status == 3
    found = statuses(ran.document)
    assert (found["outbound-captured"], found["inbound-captured"]) == ("REFUTED", "REFUTED")
    assert found["udp"] == "PROVED"


def test_the_keys_of_json_are_those_that_programs_know(dump: Path):
    foreign(dump, "-A OUTPUT -p tcp -j ACCEPT")
    found = command("prove", "--file", str(dump), "--json").document
    assert list(found) == [
        "rules",
        "read",
        "unread",
        "assumed",
        "proved",
        "properties",
        "refutations",
        "notes",
    ]
    assert set(found["properties"][0]) == {"name", "says", "status"}
    assert set(found["refutations"][0]) == {
        "refutes",
        "direction",
        "packet",
        "promised",
        "found",
        "depends_on",
        "because_of",
        "ends",
        "trace",
    }


# --- usage ------------------------------------------------------------------------------------


def test_options_that_contradict_each_other_are_all_named():
    assert_refused(
        run("prove", "--live", "--file", "x", "--dead", "--same-as", "live", "--own", "10.0.0.2"),
        "--file: the rules are those of dumps or those in the kernel",
        "--dead: rules that no packet reaches are found in one rule set",
        "--own: the addresses are those of this network namespace",
        "--same-as: live: ",
    )


@pytest.mark.parametrize("option", ["--file", "--same-as"])
def test_what_cannot_be_read_is_exit_code_1(option: str, tmp_path: Path):
    bad = tmp_path / "bad.txt"
    for text, why in (("*nat\n-A OUTPUT -j ACCEPT\n", "COMMIT"), ("hello, world\n", "can be read")):
        bad.write_text(text)
        ran = command("prove", option, str(bad))
        assert (ran.status, ran.output) == (1, ""), ran
        assert why in ran.errors
        assert str(bad) in ran.errors
    ran = command("prove", option, str(tmp_path / "missing"))
    assert (ran.status, ran.output) == (1, "")
    assert "No such file" in ran.errors


def test_wrong_settings_in_a_file_are_bad_settings(tmp_path: Path):
    path = tmp_path / "settings.yaml"
    path.write_text("envoy-prt: 15101\n")
    ran = command("prove", "--same-as", str(path))
    assert ran.status == 2
    assert "did you mean envoy-port?" in ran.errors

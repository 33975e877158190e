"""Reading a command line as Go's pflag does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from istio_iptables.settings.commands import COMMANDS, GROUPS, Command
from istio_iptables.settings.declared import SETTINGS, Setting
from istio_iptables.settings.go_flags import META, Invocation, read_arguments
from tests.support.cases import all_cases
from tests.support.flags import INJECTOR, PLAIN

KNOWN = ", ".join(command.name for command in COMMANDS)


def operands_of(command: Command) -> list[str]:
    """As few operands as a command takes."""
    if command.operand is None:
        return []
    return [next(iter(command.operand.values), "operand")] * command.operand.least


def given_by(invocation: Invocation) -> dict[str, str]:
    """What the settings come to: the last one of a name counts."""
    return {item.setting.name: item.text for item in invocation.settings}


def understood(*arguments: str) -> dict[str, str]:
    invocation = read_arguments(arguments)
    assert invocation.mistakes == ()
    return given_by(invocation)


# --- what pod specs say -----------------------------------------------------------------------


@pytest.mark.parametrize("first_word", [["istio-iptables"], []], ids=["istio", "istio-1.4"])
def test_arguments_of_the_injector(first_word: list[str]):
    invocation = read_arguments([*first_word, *INJECTOR])
    assert invocation.mistakes == ()
    assert invocation.command == ""
    assert given_by(invocation) == {
        "envoy-port": "15001",
        "inbound-capture-port": "15006",
        "proxy-uid": "1337",
        "istio-inbound-interception-mode": "REDIRECT",
        "istio-service-cidr": "*",
        "istio-service-exclude-cidr": "",
        "istio-inbound-ports": "*",
        "istio-local-exclude-ports": "15090,15021,15020",
        "log_output_level": "default:info",
    }


def test_arguments_under_a_cni_plugin():
    arguments = ["istio-iptables", *INJECTOR, "--run-validation", "--skip-rule-apply"]
    assert understood(*arguments).items() >= {"run-validation": "true", "skip-rule-apply": "true"}.items()


def test_only_one_leading_program_word_is_skipped():
    assert len(read_arguments(["istio-iptables", "istio-iptables"]).mistakes) == 1
    assert len(read_arguments(["-n", "istio-iptables"]).mistakes) == 1
    assert understood("-x", "istio-iptables") == {"istio-service-exclude-cidr": "istio-iptables"}


# --- one flag ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["-p", "15002"], ["-p15002"], ["-p=15002"], ["--envoy-port", "15002"], ["--envoy-port=15002"]],
    ids=" ".join,
)
def test_forms_of_a_flag(arguments: list[str]):
    assert understood(*arguments) == {"envoy-port": "15002"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--dry-run"], "true"),
        (["--dry-run=true"], "true"),
        (["--dry-run=false"], "false"),
        (["--dry-run=T"], "T"),
        (["--dry-run="], ""),
        (["-n"], "true"),
        (["-n=false"], "false"),
    ],
    ids=str,
)
def test_forms_of_a_boolean(arguments: list[str], text: str):
    assert understood(*arguments) == {"dry-run": text}


def test_a_boolean_does_not_take_the_next_argument():
    invocation = read_arguments(["--dry-run", "false"])
    assert given_by(invocation) == {"dry-run": "true"}
    assert invocation.mistakes == (f"'false': unknown command (commands: {KNOWN})",)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-np15002"], {"dry-run": "true", "envoy-port": "15002"}),
        (["-np", "15002"], {"dry-run": "true", "envoy-port": "15002"}),
        (["-np=15002"], {"dry-run": "true", "envoy-port": "15002"}),
        (["-nn=false"], {"dry-run": "false"}),
        (["-pn"], {"envoy-port": "n"}),
    ],
    ids=str,
)
def test_clusters_of_short_flags(arguments: list[str], expected: dict[str, str]):
    assert understood(*arguments) == expected


@all_cases("value", ["-n", "--dry-run", "--", "-", "--help", "apply", "", "a=b", "--x=y", "\n"])
def test_a_value_may_look_like_anything(value: str):
    assert understood("-x", value, "-n") == {"istio-service-exclude-cidr": value, "dry-run": "true"}
    assert understood("--istio-service-exclude-cidr", value)["istio-service-exclude-cidr"] == value
    assert understood(f"--istio-service-exclude-cidr={value}")["istio-service-exclude-cidr"] == value


def test_empty_values():
    assert understood("-x", "") == {"istio-service-exclude-cidr": ""}
    assert understood("--istio-service-exclude-cidr=") == {"istio-service-exclude-cidr": ""}


def test_repeated_flags_stand_in_the_order_given():
    invocation = read_arguments(["-p", "1", "--envoy-port=2", "-p3"])
    assert [item.text for item in invocation.settings] == ["1", "2", "3"]
    assert given_by(invocation) == {"envoy-port": "3"}


def test_a_mistake_will_be_reported_in_the_words_that_were_used():
    origins = [item.origin for item in read_arguments(["-p", "x", "--envoy-port=x", "-nzx"]).settings]
    assert origins == [
        "--envoy-port (-p)",
        "--envoy-port",
        "--dry-run (-n)",
        "--inbound-capture-port (-z)",
    ]


@all_cases("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_has_its_flag_or_none(setting: Setting):
    invocation = read_arguments([f"--{setting.name}=x"])
    if setting.has_flag:
        assert given_by(invocation) == {setting.name: "x"}
        assert invocation.mistakes == ()
    else:
        assert invocation.settings == ()
        assert len(invocation.mistakes) == 1
        assert setting.short == ""


SHORTS = {
    "envoy-port": "p",
    "inbound-capture-port": "z",
    "inbound-tunnel-port": "e",
    "proxy-uid": "u",
    "proxy-gid": "g",
    "istio-inbound-interception-mode": "m",
    "istio-inbound-ports": "b",
    "istio-local-exclude-ports": "d",
    "istio-exclude-interfaces": "c",
    "istio-service-cidr": "i",
    "istio-service-exclude-cidr": "x",
    "istio-outbound-ports": "q",
    "istio-local-outbound-ports-exclude": "o",
    "kube-virt-interfaces": "k",
    "istio-inbound-tproxy-mark": "t",
    "istio-inbound-tproxy-route-table": "r",
    "dry-run": "n",
    "restore-format": "f",
}


def test_short_flags_are_those_of_istio():
    assert {setting.name: setting.short for setting in SETTINGS if setting.short} == SHORTS


# --- commands ---------------------------------------------------------------------------------


@all_cases("command", PLAIN, ids=lambda command: command.name)
def test_settings_stand_before_and_after_the_command(command: Command):
    invocation = read_arguments(["-p", "1", *command.words, "-z2", *operands_of(command), "--dry-run"])
    assert invocation.mistakes == ()
    assert invocation.command == command.name
    assert list(invocation.operands) == operands_of(command)
    assert given_by(invocation) == {"envoy-port": "1", "inbound-capture-port": "2", "dry-run": "true"}


def test_options_of_a_command_stand_after_it():
    invocation = read_arguments(["render", "--format=json", "-n", "--explain", "--family", "ipv6"])
    assert invocation.mistakes == ()
    options = [(item.setting.name, item.text) for item in invocation.options]
    assert options == [("format", "json"), ("explain", "true"), ("family", "ipv6")]
    assert given_by(invocation) == {"dry-run": "true"}


@pytest.mark.parametrize(
    "arguments", [["--format=json", "render"], ["diff", "--format=json"], ["--explain"]], ids=" ".join
)
def test_options_of_another_command_are_unknown(arguments: list[str]):
    invocation = read_arguments(arguments)
    assert len(invocation.mistakes) == 1
    assert "unknown flag" in invocation.mistakes[0]
    assert invocation.options == ()


def test_a_command_of_two_words():
    assert read_arguments(["pod", "args", "x.yaml"]).command == "pod args"
    invocation = read_arguments(["pod", "-b", "80", "lint", "--json", "x.yaml", "-p", "1", "-", "y.yaml"])
    assert invocation.mistakes == ()
    assert invocation.command == "pod lint"
    assert invocation.operands == ("x.yaml", "-", "y.yaml")
    assert given_by(invocation) == {"istio-inbound-ports": "80", "envoy-port": "1"}
    assert [item.setting.name for item in invocation.options] == ["json"]


def test_how_many_operands_a_command_takes():
    needs = "needs FILE (Manifest of the pod, `-` for standard input.)"
    assert read_arguments(["pod", "args"]).mistakes == (f"pod args: {needs}",)
    assert read_arguments(["pod", "args", "a", "b"]).mistakes == (
        "'b': unexpected argument after the command pod args",
    )
    assert read_arguments(["pod", "lint"]).mistakes[0].startswith("pod lint: needs FILE... (")
    assert read_arguments(["pod", "lint", *"abcdefgh"]).operands == tuple("abcdefgh")
    assert read_arguments(["pod", "init-container"]).mistakes == ()
    assert read_arguments(["pod", "init-container", "a", "b"]).mistakes != ()
    assert read_arguments(["render", "a"]).mistakes == ("'a': unexpected argument after the command render",)


def test_operands_may_look_like_anything():
    invocation = read_arguments(["pod", "lint", "--", "--json", "-b", "--", "", "pod"])
    assert invocation.mistakes == ()
    assert invocation.operands == ("--json", "-b", "--", "", "pod")
    assert read_arguments(["--", "pod", "args", "-x"]).operands == ("-x",)


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_alone_is_no_command(group: str):
    names = ", ".join(command.name for command in COMMANDS if command.words[0] == group)
    assert read_arguments([group]).mistakes == (f"{group}: needs a subcommand (commands: {names})",)
    assert read_arguments([group, "--help"]).canonical() == [group, "--help"]
    assert {command.words[0] for command in COMMANDS if len(command.words) == 2} == set(GROUPS)


@all_cases(
    ("arguments", "command", "flags"),
    [
        (["help"], "", ("--help",)),
        (["help", "render"], "render", ("--help",)),
        (["help", "pod", "lint"], "pod lint", ("--help",)),
        (["-n", "help", "pod"], "pod", ("--help",)),
        (["help", "help"], "help", ("--help",)),
        (["help", "--help"], "help", ("--help",)),
        (["version"], "", ("--version",)),
        (["istio-iptables", "version"], "", ("--version",)),
        (["-V"], "", ("-V",)),
    ],
    ids=str,
)
def test_commands_that_mean_a_flag(arguments: list[str], command: str, flags: tuple[str, ...]):
    invocation = read_arguments(arguments)
    assert (invocation.command, invocation.meta, invocation.operands) == (command, flags, ())
    assert invocation.mistakes == ()


def test_help_for_what_is_no_command():
    assert read_arguments(["help", "rendr"]).mistakes == ("'rendr': unknown command (did you mean render?)",)
    assert read_arguments(["help", "pod", "x"]).mistakes[0].startswith("'pod x': unknown command")
    assert read_arguments(["help", "a", "b", "c"]).mistakes != ()
    assert read_arguments(["help", "--bogus"]).mistakes == ("--bogus: unknown flag",)


def test_an_operand_that_is_not_one_of_the_values():
    assert read_arguments(["completion", "ksh"]).mistakes == (
        "completion: 'ksh' is not one of bash, zsh, fish",
    )
    assert read_arguments(["completion"]).mistakes == ("completion: needs SHELL (bash, zsh or fish.)",)


def test_after_two_dashes_there_are_only_words():
    assert read_arguments(["-n", "--", "render"]).command == "render"
    invocation = read_arguments(["--", "-n", "--dry-run"])
    assert given_by(invocation) == {}
    assert [mistake.partition(":")[0] for mistake in invocation.mistakes] == ["'-n'", "'--dry-run'"]


def test_sources_are_kept_apart():
    invocation = read_arguments(["--config", "a.yaml", "-n", "--config=b.yaml", "--pod", "-"])
    assert [(item.setting.name, item.text) for item in invocation.sources] == [
        ("config", "a.yaml"),
        ("config", "b.yaml"),
        ("pod", "-"),
    ]
    assert given_by(invocation) == {"dry-run": "true"}


@pytest.mark.parametrize("flag", META)
def test_flags_of_the_command_line_itself(flag: str):
    invocation = read_arguments(["-n", flag, "render"])
    assert invocation.meta == (flag,)
    assert invocation.mistakes == ()
    assert invocation.command == "render"


# --- mistakes ---------------------------------------------------------------------------------


@all_cases(
    ("arguments", "mistakes"),
    [
        (["-p"], ["--envoy-port (-p): needs a value"]),
        (["--envoy-port"], ["--envoy-port: needs a value"]),
        (["-np"], ["--envoy-port (-p): needs a value"]),
        (["--proxy-iud=1"], ["--proxy-iud: unknown flag (did you mean --proxy-uid?)"]),
        (["--dryrun"], ["--dryrun: unknown flag (did you mean --dry-run?)"]),
        (["--redirect_dns"], ["--redirect_dns: unknown flag (did you mean --redirect-dns?)"]),
        (["--log-as-json"], ["--log-as-json: unknown flag (did you mean --log_as_json?)"]),
        (["-y"], ["-y: unknown flag"]),
        (["-ny"], ["-y: unknown flag"]),
        (["clean"], ["'clean': unknown command (did you mean cleanup?)"]),
        (["-"], [f"'-': unknown command (commands: {KNOWN})"]),
        (["render", "diff"], ["'diff': unexpected argument after the command render"]),
        (["pod", "lnt", "web.yaml"], ["'pod lnt': unknown command (did you mean pod lint?)"]),
        (["pod", "--josn", "lint", "x"], ["--josn: unknown flag"]),
        (["pod", "lint", "--josn", "x"], ["--josn: unknown flag (did you mean --json?)"]),
        (
            ["args", "x"],
            ["'args': unknown command (did you mean pod args?)", f"'x': unknown command (commands: {KNOWN})"],
        ),
    ],
    ids=str,
)
def test_mistakes(arguments: list[str], mistakes: list[str]):
    assert list(read_arguments(arguments).mistakes) == mistakes


def test_a_flag_nothing_like_any_other_gets_no_suggestion():
    assert read_arguments(["--zzzzzzzzzzz"]).mistakes == ("--zzzzzzzzzzz: unknown flag",)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--proxy-iud", "1", "-y", "2", "--nonsense=3", "-p", "4", "reconcile", "--envoy-port"],
        ["-y", "2", "--proxy-iud", "1", "--nonsense=3", "reconcile", "-p4", "-z"],
    ],
)
def test_all_mistakes_are_found_in_one_go(arguments: list[str]):
    invocation = read_arguments(arguments)
    assert len(invocation.mistakes) == 5
    assert given_by(invocation) == {"envoy-port": "4"}
    assert all("\n" not in mistake for mistake in invocation.mistakes)


def test_the_value_of_an_unknown_flag_is_not_a_mistake_of_its_own():
    assert len(read_arguments(["--proxy-iud", "1337"]).mistakes) == 1
    invocation = read_arguments(["--proxy-iud", "render"])
    assert len(invocation.mistakes) == 1
    assert invocation.command == "render"
    assert given_by(read_arguments(["--proxy-iud", "-n"])) == {"dry-run": "true"}


def test_a_mistake_is_one_line():
    assert all("\n" not in mistake for mistake in read_arguments(["--a\nb", "-\n"]).mistakes)


@given(st.lists(st.text() | st.sampled_from(["-", "--", "-p", "--envoy-port", "render", "-np", "--help"])))
def test_any_arguments_are_read(arguments: list[str]):
    invocation = read_arguments(arguments)
    assert isinstance(invocation, Invocation)

"""The commands about manifests: pod args, pod lint, pod init-container."""

from __future__ import annotations

import json
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from istio_iptables import __version__
from istio_iptables.cli import handlers
from istio_iptables.cli.collect import collect
from istio_iptables.pod.container import rights
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.settings.resolve import parse
from tests.support import deploy
from tests.support.command import assert_refused, run
from tests.support.kubernetes import BECOMING, WRITING, validate
from tests.support.manifests import FACTS, MODE, TRAFFIC, manifest, proxy, traffic, workload
from tests.support.pods import configured

WEB = manifest(
    traffic(includeInboundPorts="8080", excludeInterfaces="net1"),
    [proxy(env=[{"name": "ISTIO_META_DNS_CAPTURE", "value": "true"}])],
)


@pytest.fixture
def web(tmp_path: Path) -> str:
    file = tmp_path / "web.yaml"
    file.write_text(yaml.safe_dump(WEB))
    return str(file)


def test_every_command_has_its_handler():

    from istio_iptables.settings.commands import COMMANDS

    about_the_command_line = [command.name for command in COMMANDS if not command.handler]
    assert about_the_command_line == ["completion", "version", "help"]
    for command in COMMANDS:
        if command.handler:
            module, _, name = command.handler.rpartition(".")
            assert callable(getattr(import_module(f"istio_iptables.cli.{module or 'handlers'}"), name))


# --- pod args ---------------------------------------------------------------------------------


def test_arguments_as_yaml(web: str):
    text = deploy.printed("pod", "args", web)
    words = yaml.safe_load(text)
    assert text.splitlines()[-1].startswith('["istio-iptables", "--istio-inbound-ports=8080", ')
    assert words[0] == "istio-iptables"
    assert configured(*words) == configured("--pod", web)
    comments = text.splitlines()[:-1]
    assert [re.split("  +", comment[2:])[0] for comment in comments] == words[1:]
    columns = {comment.index(comment.split("  ")[-1].strip()) for comment in comments}
    assert len(columns) == 1
    assert f"pod web: annotation {TRAFFIC}includeInboundPorts" in comments[0]


def test_arguments_of_a_container(web: str):
    entry = f"args: {deploy.printed('pod', 'args', web).splitlines()[-1]}"
    assert yaml.safe_load(entry)["args"][1] == "--istio-inbound-ports=8080"


def test_arguments_for_a_shell(web: str):
    command = deploy.printed("-i", "10.0.0.0/8,fd00::/8", "pod", "args", web, "--format=shell").splitlines()[
        -1
    ]
    words = shlex.split(command, comments=True)
    assert configured(*words) == configured("--pod", web, "-i", "10.0.0.0/8,fd00::/8")


def test_arguments_as_json(web: str):
    document = json.loads(deploy.printed("pod", "args", web, "--format", "json"))
    assert configured(*document["args"]) == configured("--pod", web)
    assert [f"--{o['setting']}={o['value']}" for o in document["origins"]] == document["args"][1:]
    assert document["env"] == {}
    assert document["origins"][0]["origin"] == f"pod web: annotation {TRAFFIC}includeInboundPorts"


def test_settings_may_stand_before_and_after_the_command(web: str):
    for arguments in (
        ["-b", "80", "pod", "args", web],
        ["pod", "-b80", "args", web],
        ["pod", "args", web, "-b=80"],
    ):
        assert "--istio-inbound-ports=80" in yaml.safe_load(deploy.printed(*arguments))


def test_settings_that_have_no_flag_are_variables(web: str):
    name, text = "ISTIO_OUTBOUND_OWNER_GROUPS", "5,6"
    shell = run("pod", "args", web, "--format=shell", **{name: text}).output.splitlines()[-1]
    assert shell.startswith(f"{name}=5,6 istio-iptables ")
    assert (
        f'\n# a variable (env:), since it has no flag: {name}="5,6"\n'
        in run("pod", "args", web, **{name: text}).output
    )
    assert json.loads(run("pod", "args", web, "--format=json", **{name: text}).output)["env"] == {name: text}
    made = json.loads(run("pod", "init-container", web, "--format=json", **{name: text}).output)
    assert made["env"] == [{"name": name, "value": text}]


def test_a_value_that_is_no_word_survives(web: str):
    odd = "é\"'+"
    for style in ("yaml", "json", "shell"):
        text = deploy.printed("-c", odd, "pod", "args", web, "--format", style)
        words: Any = shlex.split(text.splitlines()[-1]) if style == "shell" else yaml.safe_load(text)
        assert f"--istio-exclude-interfaces={odd}" in (words["args"] if style == "json" else words)


def test_a_long_value_is_shortened_in_comments_alone(web: str):
    networks = ",".join(f"10.0.{i}.0/24" for i in range(200))
    text = deploy.printed("-x", networks, "pod", "args", web)
    assert f"--istio-service-exclude-cidr={networks}" in yaml.safe_load(text)
    assert max(map(len, text.splitlines()[:-1])) < 300


def test_a_manifest_from_standard_input(web: str, monkeypatch: pytest.MonkeyPatch):
    with open(web, encoding="utf-8") as file:
        monkeypatch.setattr("sys.stdin", file)
        found = deploy.printed("pod", "args", "-")
    assert found == deploy.printed("pod", "args", web)


# --- what is wrong with a manifest ------------------------------------------------------------


def refused(*arguments: str) -> list[str]:
    process = run(*arguments)
    lines = process.errors.splitlines()
    assert_refused(process, *lines)
    return lines


@pytest.mark.parametrize(
    "command", [["--dry-run", "--pod"], ["pod", "args"], ["pod", "init-container"]], ids=" ".join
)
def test_mistakes_are_reported_by_annotation(command: list[str], tmp_path: Path):
    file = tmp_path / "web.yaml"
    file.write_text(
        yaml.safe_dump(
            manifest({**traffic(includeInboundPorts="x,80", excludeOutboundPorts="*"), MODE: "no"})
        )
    )
    starts = [
        f"pod web: annotation {MODE}: 'no' is not one of REDIRECT, TPROXY",
        f"pod web: annotation {TRAFFIC}includeInboundPorts: 'x' is not a port: use a number",
        f"pod web: annotation {TRAFFIC}excludeOutboundPorts: '*' cannot be used here: list the ports",
        "--envoy-port",
    ]
    found = refused(*command, str(file), "-p", "0")
    assert [line[: len(start)] for line, start in zip(found, starts, strict=True)] == starts


def test_a_pod_of_the_node_gets_no_init_container(tmp_path: Path):
    file = tmp_path / "web.yaml"
    file.write_text(yaml.safe_dump(manifest(hostNetwork=True)))
    assert refused("pod", "init-container", str(file))[0].startswith("pod web: hostNetwork: ")


def test_which_of_several_pods(tmp_path: Path):
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all([WEB, workload("Deployment", {})]))
    choice = "choose one with --pod-name: pod/web, deployment/web"
    assert refused("pod", "args", str(file)) == [f"FILE: {str(file)!r} contains 2 pods, {choice}"]
    assert refused("-n", "--pod", str(file)) == [f"--pod: {str(file)!r} contains 2 pods, {choice}"]
    assert "--istio-inbound-ports=*" in deploy.printed("pod", "args", str(file), "--pod-name=deployment/web")


# --- pod lint ---------------------------------------------------------------------------------


def test_lint_prints_a_line_for_each_finding(tmp_path: Path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(yaml.safe_dump(WEB))
    bad.write_text(yaml.safe_dump_all([manifest({MODE: "tproxy"}, name=name) for name in "ab"]))
    process = run("pod", "lint", str(good), str(bad))
    assert process.status == 3
    line, other = (i for i, text in enumerate(bad.read_text().splitlines(), 1) if MODE in text)
    assert [text.partition(": annotation")[0] for text in process.output.splitlines()] == [
        f"{bad}:{line}:5: pod a",
        f"{bad}:{other}:5: pod b",
    ]
    assert process.errors == ""
    process = run("pod", "lint", str(good))
    assert (process.status, process.output) == (0, "")
    assert process.errors.endswith("\tinfo\tpods checked: 1, no findings\n")
    assert run("pod", "lint", "--ignore", "dns,invalid", str(bad)).status == 0
    assert run("pod", "lint", str(bad), "--pod-name", "a").output.count("\n") == 1
    document = json.loads(run("pod", "lint", "--json", str(bad)).output)
    assert document["pods"] == 2
    assert [(f["file"], f["pod"], f["kind"]) for f in document["findings"]] == [
        (str(bad), "pod a", "invalid"),
        (str(bad), "pod b", "invalid"),
    ]
    texts = {"file", "pod", "kind", "where", "problem", "remedy"}
    assert set(document["findings"][0]) == {*texts, "line", "column"}
    assert (document["findings"][0]["line"], document["findings"][0]["column"]) == (line, 5)


def test_lint_of_what_holds_no_pod(tmp_path: Path):
    file = tmp_path / "service.yaml"
    file.write_text("kind: Service\n")
    process = run("pod", "lint", str(file))
    assert (process.status, process.output) == (0, "")
    assert f"\twarn\t{file}: contains no pod, and no workload with a pod template" in process.errors


def test_lint_of_what_cannot_be_read(tmp_path: Path):
    file = tmp_path / "template.yaml"
    file.write_text("a: {{ .Values.x }}: [\n")
    found = refused("pod", "lint", str(file), "/does/not/exist")
    assert found[0].startswith(f"FILE: {str(file)!r} is neither YAML nor JSON: ")
    assert found[1:] == ["FILE: '/does/not/exist' cannot be read: No such file or directory"]


# --- a pod that captures nothing --------------------------------------------------------------


NOTHING = "captures nothing: nothing to do"


@pytest.fixture
def none(tmp_path: Path) -> str:
    file = tmp_path / "none.yaml"
    file.write_text(yaml.safe_dump(manifest({MODE: "NONE", **traffic(includeInboundPorts="80")})))
    return str(file)


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        ([], ""),
        (["apply"], ""),
        (["--dry-run"], ""),
        (["--dry-run", "--native-nftables", "--redirect-dns"], ""),
        (["--run-validation"], ""),
        (["--skip-rule-apply", "--run-validation"], ""),
        (["--network-namespace=/proc/1/ns/net"], ""),
        (["diff"], ""),
        (["diff", "--json"], {"differs": False, "parts": []}),
        (["validate"], ""),
        (["validate", "--json"], {"succeeded": True, "probes": [], "notes": []}),
        (["prove", "--json"], {"proved": True, "properties": [], "refutations": []}),
        (["render"], ""),
        (["pod", "args"], ""),
        (["pod", "args", "--format=shell"], ""),
        (["pod", "args", "--format=json"], {"args": None, "env": {}, "origins": []}),
        (["pod", "init-container"], ""),
        (["pod", "init-container", "--format=json"], None),
    ],
    ids=str,
)
def test_no_interception_leaves_nothing_to_do(arguments: list[str], output: Any, none: str):
    """Nothing is read or written, so that no privilege is needed, and there is one line in the log."""
    source = [none] if arguments[:1] == ["pod"] else ["--pod", none]
    process = run(*arguments, *source)
    assert process.status == 0
    assert (json.loads(process.output) if output != "" else process.output) == output
    [line] = process.errors.splitlines()
    assert line.endswith(f"\tinfo\tpod web: annotation {MODE}: 'NONE' {NOTHING}")


def test_the_json_of_nothing_to_do_is_that_of_the_commands():
    from istio_iptables.validation.report import document

    assert json.loads(handlers._NO_CAPTURE_AS_JSON["validate"]) == document((), (), succeeded=True)
    assert set(handlers._NO_CAPTURE_AS_JSON) == {
        "diff",
        "doctor",
        "validate",
        "prove",
        "pod args",
        "pod init-container",
    }


def test_rules_that_capture_nothing_are_rendered_as_json(none: str):
    assert json.loads(run("render", "--format=json", "--pod", none).output)["tables"] == []


def test_a_dry_run_of_nothing_empties_its_file(none: str, tmp_path: Path):
    file = tmp_path / "script"
    file.write_text("*nat\n")
    assert run("-n", "--pod", none, DRY_RUN_FILE_PATH=str(file)).status == 0
    assert file.read_text() == ""


def test_a_mode_that_is_given_takes_precedence_over_no_interception(none: str):
    process = run("--dry-run", "--pod", none, "-m", "REDIRECT")
    assert "-A ISTIO_INBOUND -p tcp -m tcp --dport 80 -j ISTIO_IN_REDIRECT" in process.output
    assert NOTHING not in process.errors


def test_mistakes_count_in_a_pod_that_captures_nothing(tmp_path: Path):
    file = tmp_path / "web.yaml"
    file.write_text(yaml.safe_dump(manifest({MODE: "NONE", **traffic(includeInboundPorts="x")})))
    assert refused("--pod", str(file))[0].startswith(f"pod web: annotation {TRAFFIC}includeInboundPorts: 'x'")


def test_arguments_for_the_plugin(tmp_path: Path):
    file = tmp_path / "web.yaml"
    file.write_text(yaml.safe_dump(WEB))
    found = yaml.safe_load(deploy.printed("pod", "args", "--cni-mode", str(file)))
    assert {"--istio-local-outbound-ports-exclude=15020", "--capture-all-dns=true"} <= set(found)
    assert not {"--istio-local-outbound-ports-exclude=15020", "--capture-all-dns=true"} & set(
        yaml.safe_load(deploy.printed("pod", "args", str(file)))
    )


def test_settings_without_effect_are_no_arguments(tmp_path: Path):
    file = tmp_path / "web.yaml"
    file.write_text(
        yaml.safe_dump(manifest(inits=[{"name": "istio-init", "args": ["--vklog=9", "-b", "80"]}]))
    )
    found = yaml.safe_load(deploy.printed("pod", "args", str(file)))
    assert "--istio-inbound-ports=80" in found
    assert not [argument for argument in found if "vklog" in argument]
    process = run("-n", "--pod", str(file))
    assert "\twarn\tpod web: container istio-init: --vklog: ignored: it changes no rule" in process.errors


# --- pod init-container -----------------------------------------------------------------------


def pod_with(container: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "app", "image": "app"}], "initContainers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}


@pytest.mark.parametrize(
    "more", [[], ["--image=example.com/x:1"], ["-m", "TPROXY", "--redirect-dns"]], ids=str
)
@pytest.mark.parametrize("with_pod", [True, False])
def test_the_container_is_valid_and_means_what_was_given(more: list[str], with_pod: bool, web: str):
    source = [web] if with_pod else []
    [made] = yaml.safe_load(deploy.printed("pod", "init-container", *source, *more))
    assert json.loads(deploy.printed("pod", "init-container", *source, *more, "--format=json")) == made
    validate(pod_with(made))
    assert made["image"] == (
        "example.com/x:1" if "--image=example.com/x:1" in more else f"istio-iptables:{__version__}"
    )
    flags = [word for word in more if not word.startswith("--image")]
    assert configured(*made["args"]) == configured(*flags, *(["--pod", web] if with_pod else []))


@pytest.mark.parametrize(
    ("arguments", "user", "group", "capabilities"),
    [
        ([], 0, 0, WRITING),
        (["--run-validation"], 0, 0, [*WRITING, *BECOMING]),
        (["--run-validation", "--skip-rule-apply"], 1337, 1337, []),
        (["--run-validation", "--skip-rule-apply", "-u", "7,8", "-g", "9"], 7, 9, []),
        (["--run-validation", "--skip-rule-apply", "-u", "0", "-g", "0"], 0, 0, []),
        (["--skip-rule-apply"], 1337, 1337, []),
        (["--dry-run"], 1337, 1337, []),
        (["--dry-run", "--run-validation"], 1337, 1337, []),
        # A cleanup looks at the rules and takes them away, and there is nothing to validate.
        (["--cleanup-only", "--skip-rule-apply", "--run-validation"], 0, 0, WRITING),
        (["--cleanup-only", "--dry-run"], 0, 0, WRITING),
    ],
)
def test_the_container_has_the_least_privileges(
    arguments: list[str], user: int, group: int, capabilities: list[str], web: str
):
    [made] = yaml.safe_load(deploy.printed("pod", "init-container", web, *arguments))
    validate(pod_with(made))
    added = {"add": capabilities} if capabilities else {}
    assert made["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "capabilities": {"drop": ["ALL"], **added},
        "readOnlyRootFilesystem": True,
        "runAsUser": user,
        "runAsGroup": group,
        "runAsNonRoot": user != 0,
    }
    assert set(made["resources"]) == {"requests", "limits"}
    # The lock is that of writers.
    assert ("--cni-mode=true" in made["args"]) == (capabilities != [])


@pytest.mark.parametrize(
    ("more", "capabilities"),
    [
        ([], [*WRITING, "SYS_ADMIN"]),
        (["--run-validation"], [*WRITING, "SYS_ADMIN", *BECOMING]),
        (["--run-validation", "--skip-rule-apply"], ["SYS_ADMIN", *BECOMING]),
        (["--skip-rule-apply"], ["SYS_ADMIN"]),
    ],
)
def test_another_network_namespace_takes_root_and_one_more_capability(
    more: list[str], capabilities: list[str]
):
    """Only root has capabilities in a container, whatever is added."""
    given, mistakes = collect(read_arguments(["--network-namespace=x", *more]), {})
    granted = rights(parse(given, FACTS, mistakes))
    assert (granted.user, granted.group, granted.capabilities) == (0, 0, tuple(capabilities))


@pytest.mark.parametrize("more", [[], ["-u", "7", "-g", "9"], ["--redirect-dns"]], ids=str)
def test_where_a_cni_plugin_writes_the_rules_it_only_proves_that_they_are_there(more: list[str], web: str):
    """SPEC 1: `--run-validation --skip-rule-apply`, as UID 1337, with a read-only root file system."""
    [made] = yaml.safe_load(deploy.printed("pod", "init-container", "--cni", web, *more))
    validate(pod_with(made))
    assert made["name"] == "istio-validation"
    assert {"--run-validation=true", "--skip-rule-apply=true"} <= set(made["args"])
    wanted = configured("--pod", web, "--run-validation", "--skip-rule-apply", *more)
    assert configured(*made["args"]) == wanted
    context = made["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == ((7, 9) if "-u" in more else (1337, 1337))
    assert (context["capabilities"], context["readOnlyRootFilesystem"]) == ({"drop": ["ALL"]}, True)


def test_a_lock_mode_that_was_given_stays(web: str):
    assert "--cni-mode=false" in deploy.printed("pod", "init-container", web, "--cni-mode=false")


@pytest.mark.parametrize("image", ["", " "])
def test_an_image_without_a_name_is_a_mistake(image: str, web: str):
    [mistake] = refused("pod", "init-container", web, "--image", image)
    assert mistake.startswith(f"--image: {image!r} is not an image: use a name such as ")


def test_a_container_that_is_not_valid_is_noticed(web: str):
    [made] = yaml.safe_load(deploy.printed("pod", "init-container", web))
    made["securityContext"]["runAsUser"] = "root"
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(pod_with(made))
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(pod_with({**made, "securityContext": {"capabilitys": {}}}))

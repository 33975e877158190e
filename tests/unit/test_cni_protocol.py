"""The CNI plugin and the specification: what it reads, what it answers, and the code of each error.

https://www.cni.dev/docs/spec/; the codes are from its section 5, "Error".
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given

from istio_iptables.cli.log import Logger
from istio_iptables.cni import plugin, protocol
from istio_iptables.cni.pod import Identity
from istio_iptables.cni.protocol import Document
from istio_iptables.errors import KernelError
from istio_iptables.remedies import lock_held
from tests.support.cni import INJECTED, RESULT, call, configuration, start, variables
from tests.unit.test_json_text import objects

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
#: A pod without a sidecar: the plugin passes the result on and does nothing.
PLAIN = {"a": "b"}


@pytest.mark.parametrize("version", VERSIONS)
def test_add_prints_the_result_that_it_was_given_in_the_version_that_came_in(monkeypatch, version):
    result = {**RESULT, "cniVersion": version}
    found = call(monkeypatch, variables(), configuration(PLAIN, cniVersion=version, prevResult=result))
    assert found.status == 0
    assert found.document == result


@given(objects)
def test_the_result_is_passed_on_to_the_letter(value):
    text = json.dumps({"cniVersion": "1.0.0", **value, "a": 1.50, "b": 10**30})
    document = Document('{"cniVersion": "' + json.loads(text)["cniVersion"] + f'", "prevResult": {text}}}')
    if document.get("prevResult")["cniVersion"] == document.version:
        assert protocol.result_text(document) == text + "\n"


@pytest.mark.parametrize("given_version", [None, "0.4.0"])
def test_a_result_of_another_version_is_answered_in_the_one_that_came_in(monkeypatch, given_version):
    result = {key: value for key, value in RESULT.items() if key != "cniVersion"}
    if given_version:
        result = {"cniVersion": given_version, **result}
    found = call(monkeypatch, variables(), configuration(PLAIN, prevResult=result))
    assert found.document == {**result, "cniVersion": "1.0.0"}


def test_numbers_and_order_of_the_result_stay(monkeypatch):
    text = '{"ips":[{"address" : "10.0.0.1/8"}], "x": 1.000, "y": 12345678901234567890, "cniVersion":"1.0.0"}'
    given = json.dumps(configuration(PLAIN, prevResult=None))[:-1] + f', "prevResult": {text}}}'
    assert call(monkeypatch, variables(), given.encode()).out == f"{text}\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_version(monkeypatch, version):
    found = call(monkeypatch, {"CNI_COMMAND": "VERSION"}, {"cniVersion": version})
    assert found.document == {"cniVersion": version, "supportedVersions": list(VERSIONS)}


@pytest.mark.parametrize("content", [b"", b"{}", b'{"cniVersion": "9.9.9"}'])
def test_version_is_answered_whatever_the_runtime_speaks(monkeypatch, content):
    found = call(monkeypatch, {"CNI_COMMAND": "VERSION"}, content)
    assert found.document == {"cniVersion": "1.1.0", "supportedVersions": list(VERSIONS)}


# --- code 1: the version --------------------------------------------------------------------


@pytest.mark.parametrize("version", [None, "0.2.0", "1.2.0", 1, ["1.0.0"]])
def test_other_versions_are_refused(monkeypatch, version):
    found = call(monkeypatch, variables(), configuration(cniVersion=version))
    assert (found.status, found.code) == (1, 1)
    assert found.document["cniVersion"] == "1.1.0"
    assert "0.3.1, 0.4.0, 1.0.0, 1.1.0" in found.document["details"]


@pytest.mark.parametrize(
    ("command", "version", "known"),
    [
        ("CHECK", "0.3.1", False),
        ("CHECK", "0.4.0", True),
        ("STATUS", "1.0.0", False),
        ("GC", "1.0.0", False),
        ("GC", "1.1.0", True),
    ],
)
def test_a_command_exists_since_a_version(monkeypatch, command, version, known):
    found = call(monkeypatch, variables(command), configuration(PLAIN, cniVersion=version))
    assert (found.code == 1) is not known
    if not known:
        assert found.document["cniVersion"] == version


# --- code 4: the environment ----------------------------------------------------------------


def test_all_that_is_missing_in_the_environment_is_told_at_once(monkeypatch):
    found = call(monkeypatch, {"CNI_COMMAND": "ADD", "CNI_ARGS": "x;K8S_POD_NAME=web"}, configuration())
    assert found.code == 4
    assert found.document["details"].splitlines() == [
        "CNI_CONTAINERID is not set, and ADD needs it",
        "CNI_NETNS is not set, and ADD needs it",
        "CNI_IFNAME is not set, and ADD needs it",
        "CNI_ARGS: 'x' is not NAME=VALUE",
    ]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"CNI_COMMAND": ""},
        {"CNI_COMMAND": "add"},
        variables(CNI_CONTAINERID="a/b"),
        variables(CNI_CONTAINERID="-a"),
        variables(CNI_CONTAINERID="é"),
        variables(CNI_IFNAME="a/b"),
        variables(CNI_IFNAME="eth0 x"),
        variables(CNI_IFNAME=".."),
        variables(CNI_IFNAME="sixteen-letters-"),
        variables("CHECK", CNI_NETNS=""),
        variables("DEL", CNI_IFNAME=""),
        variables("GC", CNI_PATH=""),
    ],
)
def test_a_bad_environment(monkeypatch, environ):
    found = call(monkeypatch, environ, configuration(cniVersion="1.1.0"))
    assert (found.status, found.code, found.document["cniVersion"]) == (1, 4, "1.1.0")


@pytest.mark.parametrize(("command", "variable"), [("DEL", "CNI_NETNS"), ("ADD", "CNI_PATH")])
def test_what_the_specification_leaves_out_may_be_missing(monkeypatch, command, variable):
    found = call(monkeypatch, variables(command, **{variable: ""}), configuration(PLAIN))
    assert found.status == 0


def test_without_arguments_it_is_no_pod(monkeypatch):
    assert call(monkeypatch, variables(CNI_ARGS=""), configuration()).document == RESULT


# --- code 6: what cannot be decoded ---------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b'"x"', b"\xff", b'{"cniVersion": NaN}', b'{"name": 1, "name": 2}'],
)
def test_what_is_no_object(monkeypatch, content):
    found = call(monkeypatch, variables(), content)
    assert (found.status, found.code, found.document["cniVersion"]) == (1, 6, "1.1.0")


def test_a_configuration_without_end_is_not_read_to_its_end(monkeypatch):
    found = call(monkeypatch, variables(), b"{" + b" " * (8 << 20) + b"}")
    assert (found.code, found.document["details"]) == (6, "at most 8 MiB are read")


@pytest.mark.parametrize("annotations", [{"a": 1}, {"a": None}])
def test_annotations_that_are_no_texts(monkeypatch, annotations):
    assert call(monkeypatch, variables(), configuration(annotations)).code == 6


@pytest.mark.parametrize("text", ["x", "[]", '{"containers": 1}', '{"initContainers": [1]}'])
def test_a_list_of_the_injector_that_cannot_be_read(monkeypatch, text):
    found = call(monkeypatch, variables(), configuration({"sidecar.istio.io/status": text}))
    assert found.code == 6


# --- code 7: the configuration --------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"name": None}, "name: the network has no name"),
        ({"name": "a b"}, "name: the network has no name"),
        ({"prevResult": None}, "prevResult: is missing"),
        ({"prevResult": [1]}, "prevResult: is not an object"),
        ({"name": None, "prevResult": None}, "name: "),
    ],
)
def test_what_the_protocol_demands_of_a_configuration(monkeypatch, keys, told):
    found = call(monkeypatch, variables(), configuration(**keys))
    assert found.code == 7
    assert told in found.document["details"]


def test_check_needs_the_result_too(monkeypatch):
    assert call(monkeypatch, variables("CHECK"), configuration(prevResult=None)).code == 7


def test_mistakes_of_a_pod_are_told_at_once_and_by_their_names(monkeypatch):
    bad = {
        **INJECTED,
        "traffic.sidecar.istio.io/includeInboundPorts": "80,http",
        "traffic.sidecar.istio.io/excludeOutboundIPRanges": "10.0.0.0/40",
        "sidecar.istio.io/interceptionMode": "MAGIC",
    }
    found = call(monkeypatch, variables(), configuration(bad))
    assert found.code == 7
    lines = found.document["details"].splitlines()
    assert len(lines) == 3
    assert all(any(name in line for line in lines) for name in bad if name != "sidecar.istio.io/status")


# --- codes 3, 5, 11 and those of this plugin ------------------------------------------------


def test_a_network_namespace_that_is_not_there(monkeypatch):
    found = call(monkeypatch, variables(), configuration())
    assert (found.code, found.document["cniVersion"]) == (3, "1.0.0")
    assert "/run/netns/there-is-none" in found.document["details"]


def test_a_runtime_that_hands_over_no_annotations(monkeypatch):
    found = call(monkeypatch, variables(), configuration(None))
    assert found.code == 11
    assert "kubeconfig" in found.document["details"]
    assert "the runtime does not hand them over" in found.document["details"]
    found = call(monkeypatch, variables(), configuration(None, capabilities=None))
    assert found.code == 11
    assert '"io.kubernetes.cri.pod-annotations": true' in found.document["details"]


def test_a_pod_without_annotations_is_known(monkeypatch):
    """Go's runtimes write an empty map as null."""
    given = {**configuration(), "runtimeConfig": {"io.kubernetes.cri.pod-annotations": None}}
    found = call(monkeypatch, variables(), given)
    assert found.document == RESULT
    assert "no-status" in found.log[-1]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (lock_held("/proc/self/ns/net", "another process", 10), 11),
        (KernelError("the kernel", "load it"), 5),
        (OSError(28, "No space left on device"), 5),
        (RuntimeError("a bug"), 101),
    ],
)
def test_what_goes_wrong_has_a_code(monkeypatch, error, code):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(plugin, "handed_over", fail)
    found = call(monkeypatch, variables(), configuration())
    assert (found.status, found.code) == (1, code)
    assert found.document["msg"]
    assert any(line.startswith("error ") and found.document["msg"] in line for line in found.log)


@pytest.mark.parametrize("command", ["DEL", "GC"])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"settings": {"nonsense": 1}},
        {"prevResult": None},
        {"prevResult": 1},
        {"name": None},
        {"cni.dev/valid-attachments": [{"x": 1}]},
    ],
)
@pytest.mark.parametrize("annotations", [None, INJECTED, PLAIN, {"sidecar.istio.io/status": "["}])
def test_a_pod_can_go_whatever_became_of_its_node(monkeypatch, command, keys, annotations):
    given = configuration(annotations, cniVersion="1.1.0", **keys)
    for _ in range(2):
        found = call(monkeypatch, variables(command), given)
        assert (found.status, found.out) == (0, "")


# --- what a terminal would obey ---------------------------------------------------------------

#: It clears a terminal, ends its title, and turns the direction of text.
ODD = "a\x1b[2J\x9b\x07\u202eb"


def test_an_answer_shows_control_characters_of_others_escaped() -> None:
    """An error may quote rules that others have made; kubelet writes it into the events of the pod."""
    answer = json.loads(
        protocol.error_text(protocol.CniError(5, f"rule {ODD}", f"first {ODD}\nsecond"), "1.0.0")
    )
    assert answer["msg"] == r"rule a\x1b[2J\x9b\x07\u202eb"
    assert answer["details"] == "first a\\x1b[2J\\x9b\\x07\\u202eb\nsecond"


@pytest.mark.parametrize("as_json", [False, True])
def test_the_log_shows_control_characters_of_others_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    """On standard error and in the file: of the pod's name, and of whatever a line quotes."""
    file = tmp_path / "log"
    log = Logger()
    log.configure((), as_json=as_json)
    log.append_to(str(file))
    log.name(str(Identity(f"web{ODD}", "shop")))
    log.error(f"rule {ODD} of \u00e9")
    said = capsys.readouterr().err
    assert said == file.read_text()
    assert said.rstrip("\n").replace("\t", "").isprintable()
    assert said.count("[2J") == 2
    if as_json:
        assert json.loads(said)["msg"].endswith(f"rule {ODD} of \u00e9")


def test_a_call_for_a_pod_with_control_characters_in_its_name() -> None:
    annotations = {**INJECTED, "traffic.sidecar.istio.io/includeInboundPorts": ODD}
    done = start(variables(name=f"web{ODD}"), configuration(annotations))
    assert done.returncode == 1
    assert done.stdout.isascii()
    assert all(line.replace("\t", "").isprintable() for line in done.stderr.splitlines())
    assert "x1b[2J" in done.stderr

"""Each command takes the capabilities that SECURITY.md says, exactly these, and names one that is missing."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from istio_iptables.settings.commands import COMMANDS
from tests.support import broken_pods, cni
from tests.support.netns import Namespace

from ..support.scratch import KERNEL, PACKAGE_FOLDER, SETPRIV, Result, Scratch
from ..support.seeing import dial, pod

pytestmark = KERNEL

PAGE = Path(__file__).parents[2] / "SECURITY.md"
_ROW = re.compile(r"^\| (`.*?) \| (none|[A-Z_, ]+)(?: \(.*\))? \|$", re.MULTILINE)

#: How each command of the table is called; `{folder}` is a folder of the test's own, `{namespace}` the pod.
_PACKET = ("out", "--to", "10.8.1.1:80")
CALLS: Mapping[str, Sequence[str]] = {
    "apply": (),
    "apply --reconcile": ("-b", "80", "--reconcile"),
    "apply --dry-run": ("--dry-run",),
    "apply --run-validation": ("--run-validation",),
    "apply --network-namespace": ("--network-namespace={namespace}", "--cni-mode"),
    "diff": ("diff",),
    "cleanup": ("cleanup",),
    "status": ("status",),
    "validate": ("validate",),
    "doctor": ("doctor",),
    "render": ("render",),
    "render --live": ("render", "--live", "--format=mermaid"),
    "trace": ("trace", *_PACKET),
    "trace --live": ("trace", *_PACKET, "--live"),
    "trace --file": ("trace", *_PACKET, "--file={folder}/dump"),
    "trace --watch": ("trace", *_PACKET, "--watch", "--count=1", "--json"),
    "prove": ("prove",),
    "prove --live": ("prove", "--live"),
    "report": ("report", "--html=-"),
    "report --live": ("report", "--html=-", "--live"),
    "pod args": ("pod", "args", "{folder}/pod"),
    "pod lint": ("pod", "lint", "{folder}/pod"),
    "pod init-container": ("pod", "init-container"),
    "completion": ("completion", "bash"),
    "version": ("version",),
    "help": ("help",),
}
#: Rules are in place for these.
IN_PLACE = {
    "apply --reconcile",
    *("diff", "cleanup", "status", "validate"),
    *(f"{name} --live" for name in ("render", "trace", "prove", "report")),
    "trace --watch",
}
#: For these test_cni_node.py shows it, in folders with what a node has.
ELSEWHERE = {"cni install", "cni uninstall", "cni status", "cni repair"}


def table() -> dict[str, tuple[str, ...]]:
    """Return what SECURITY.md says: the capabilities of each command."""
    found = {}
    for commands, capabilities in _ROW.findall(PAGE.read_text()):
        for command in re.findall(r"`([^`]+)`", commands):
            found[command] = () if capabilities == "none" else tuple(capabilities.split(", "))
    return found


TABLE = table()


def limits(capabilities: Sequence[str]) -> list[str]:
    """Return the beginning of a command that may do this and no more, and can gain nothing."""
    allowed = ",".join(["-all", *(f"+{name.lower()}" for name in capabilities)])
    return [SETPRIV, "--no-new-privs", "--inh-caps=-all", f"--bounding-set={allowed}"]


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    """A pod with a way out."""
    with pod() as made:
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}}
        spec = {"containers": [{"name": "app", "image": "app"}]}
        (made.directory / "pod").write_text(json.dumps({**manifest, "spec": spec}))
        (made.directory / "dump").write_text("*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n")
        yield made


def call(scratch: Scratch, command: str, capabilities: Sequence[str]) -> Result:
    """Run a command of the table in a pod that is as it was before."""
    names = {"folder": str(scratch.directory), "namespace": scratch.path}
    words = [word.format(**names) for word in CALLS[command]]
    if command in IN_PLACE:
        scratch.apply("--reconcile")
    elif capabilities:
        scratch.apply("cleanup")
    if command == "trace --watch":
        return watch(scratch, words, capabilities)
    if command == "apply --network-namespace":
        with Scratch() as outside:
            return outside.tool(*words, prefix=limits(capabilities))
    return scratch.tool(*words, prefix=limits(capabilities))


def watch(scratch: Scratch, words: Sequence[str], capabilities: Sequence[str]) -> Result:
    """Watch until one packet was seen."""
    command = [*limits(capabilities), sys.executable, "-m", "istio_iptables", *words]
    process = scratch.spawn(*command)
    assert process.stderr
    said = []
    for line in process.stderr:
        said.append(line)
        if "watching packets: " in line:
            dial(scratch)
            break
    output, errors = process.communicate(timeout=30)
    return Result(command, process.returncode, output, "".join(said) + errors)


@pytest.mark.parametrize("command", CALLS)
def test_exactly_the_capabilities_of_the_table_are_needed(scratch: Scratch, command: str) -> None:
    capabilities = TABLE[command]
    done = call(scratch, command, capabilities)
    assert done.returncode == 0, done.stdout + done.stderr
    for missing in capabilities:
        less = [name for name in capabilities if name != missing]
        done = call(scratch, command, less)
        assert done.returncode not in (0, 2), f"{missing} is not needed"
        assert missing in done.stdout + done.stderr


PLUGIN = ("ADD", "CHECK", "DEL", "STATUS")


@pytest.mark.parametrize("command", PLUGIN)
def test_exactly_the_capabilities_of_the_plugin(scratch: Scratch, command: str) -> None:
    capabilities = TABLE[f"istio-iptables-cni {command}"]
    variables = cni.variables(command, CNI_NETNS=scratch.path)
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(PACKAGE_FOLDER)}
    result = {**cni.RESULT, "cniVersion": "1.1.0"}
    given = json.dumps(cni.configuration(cniVersion="1.1.0", prevResult=result))

    def called(allowed: Sequence[str]) -> Result:
        scratch.apply("cleanup")
        program = [sys.executable, "-c", cni.PROGRAM]
        if command in ("CHECK", "DEL"):
            with Scratch() as outside:
                added = outside.run(*program, stdin=given, env={**variables, **path, "CNI_COMMAND": "ADD"})
            assert added.returncode == 0, added.stdout
        with Scratch() as outside:
            return outside.run(*limits(allowed), *program, stdin=given, env={**variables, **path})

    def is_done(done: Result) -> bool:
        return done.returncode == 0 and "not done" not in done.stderr  # DEL succeeds always

    done = called(capabilities)
    assert is_done(done), done.stdout + done.stderr
    for missing in capabilities:
        done = called([name for name in capabilities if name != missing])
        assert not is_done(done), f"{missing} is not needed"
        assert missing in done.stdout + done.stderr


#: What `cni repair --action in-place` does with a pod that it has found, without the API.
_IN_PLACE = """
import json, sys
from istio_iptables.cli.log import log
from istio_iptables.cni import configuration
from istio_iptables.cni.node.broken import broken
from istio_iptables.cni.node.in_place import write_rules
from istio_iptables.errors import KernelError
document = sys.stdin.read()
node = configuration.read(configuration.entry({"metrics_file": ""}))
try:
    write_rules(broken(json.loads(document)), document, node, log)
except KernelError as error:
    sys.exit(str(error))
"""


def test_exactly_the_capabilities_of_repair_in_place(scratch: Scratch) -> None:
    """The pod's process is another user's, as that of the pause image is."""
    capabilities = TABLE["cni repair --action in-place"]
    document = broken_pods.injected()
    with Namespace() as pod, broken_pods.running(document, pod):
        pod.ip("link add eth0 type veth peer name p0", "addr add 10.1.0.5/16 dev eth0")

        def called(allowed: Sequence[str]) -> Result:
            words = [*limits(allowed), sys.executable, "-c", _IN_PLACE]
            return scratch.run(*words, stdin=json.dumps(document))

        for missing in capabilities:
            done = called([name for name in capabilities if name != missing])
            assert done.returncode == 1, f"{missing} is not needed"
            assert missing in done.stderr
            assert "ISTIO" not in pod.save("legacy", "ipv4")
        done = called(capabilities)
        assert done.returncode == 0, done.stderr
        assert "-A ISTIO_REDIRECT" in pod.save("legacy", "ipv4")


def test_the_table_has_every_command() -> None:
    plugin = {f"istio-iptables-cni {command}" for command in PLUGIN}
    assert set(TABLE) == set(CALLS) | ELSEWHERE | plugin | {"cni repair --action in-place"}
    assert not any(TABLE[name] for name in ELSEWHERE)
    assert {command.name for command in COMMANDS} <= set(TABLE)

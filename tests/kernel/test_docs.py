"""The documentation does what it says: every command of README.md, docs/ and deploy/ is run, in pods.

tests/support/pages.py says how a page is written; tests/unit/test_docs.py checks what needs no kernel. What a
page marks as needing more than a network namespace is not run; the end of the run says how much that is.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml

from istio_iptables.settings.go_flags import read_arguments
from tests.support import pages
from tests.support.netns import Namespace, Pod
from tests.support.pages import ROOT, Block, Command, Listen, Page
from tests.support.sandbox import SCENES, Sandbox, pod_of, why_no_systemd

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


@pytest.mark.parametrize("name", pages.PAGES)
def test_everything_on_a_page_works(name):
    page = pages.read(name)
    with contextlib.ExitStack() as stack:
        sandbox: Sandbox | None = None
        wrong: list[str] = []
        for scene, steps in sections(page):
            if scene == "machine" and why_no_systemd():
                pytest.skip(f"needs systemd: {why_no_systemd()}")
            if scene != "machine" and sandbox is None:
                sandbox = stack.enter_context(Sandbox())
            with Scene(scene, sandbox) as place:
                wrong += [text for step in steps if (text := place.do(step))]
        if any(block.kind == "doctest" for block in page.blocks):
            with Scene("ipv4", sandbox) as place:
                wrong += place.failed(Command(name, 1, f"python3 -m doctest {name}"))
    assert not wrong, "\n\n".join(wrong)


def sections(page: Page) -> Iterator[tuple[str, list[Command | Listen | Block]]]:
    """Return the scene and the steps of every section that has something to run."""
    for _, group in itertools.groupby(page.steps, key=lambda step: step.section):
        steps = [step for step in group if not (isinstance(step, Command) and step.needs)]
        if any(not isinstance(step, Block) or step.kind in ("python", "yaml", "json") for step in steps):
            yield steps[0].scene, steps


class Scene:
    """A pod, or a machine, in which the steps of a section are done, one after the other."""

    def __init__(self, scene: str, sandbox: Sandbox | None) -> None:
        self._scene = scene
        self._sandbox = sandbox
        self._stack = contextlib.ExitStack()
        self._neighbour: Namespace | None = None

    def __enter__(self) -> Scene:
        with contextlib.ExitStack() as stack:
            self.pod: Pod = stack.enter_context(pod_of(self._scene))
            if self._scene == "machine":
                self._sandbox = stack.enter_context(Sandbox(self.pod, systemd=True))
                self._sandbox.install()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def do(self, step: Command | Listen | Block) -> str:
        """Do a step and return what was wrong with it, or nothing."""
        if isinstance(step, Listen):
            where = self.pod.client if step.name.startswith("client") else self.pod
            where.listen(step.name, tcp=step.ports, uid=step.uid, gid=step.uid)
            return ""
        if isinstance(step, Block):
            return self._block(step)
        return "\n".join(self.failed(step))

    def failed(self, command: Command) -> list[str]:
        """Run a command and return what is not as its page says."""
        text = self._runnable(command.text)
        if not text:
            return []
        assert self._sandbox
        done = self._sandbox.run(f"set -e\n{text}", self.pod, merged=True)  # each of its parts has to succeed
        if done.returncode not in command.codes:
            said = f"exit code {done.returncode}, not {command.codes}:\n{done.stdout}"
        elif command.output is not None and not pages.matches(command.output, done.stdout):
            said = f"the page shows\n{command.output}\nit printed\n{done.stdout}"
        else:
            return []
        return [f"{command.where}: {command.text}\n{said}"]

    def _runnable(self, text: str) -> str:
        """Return a command as it can be run here: NAME and PID are real ones, `make run` is without make."""
        if text.startswith("make "):
            return _made(text)
        if re.search(r"\bNAME\b", text):
            text = re.sub(r"\bNAME\b", self._neighbours_name(), text)
        text = re.sub(r"\bPID\b", str(self.pod._helper.pid), text)
        if re.search(r"\bFILE\b", text):
            (self.pod.directory / "pod.yaml").write_text(MANIFEST)
            text = re.sub(r"\bFILE\b", str(self.pod.directory / "pod.yaml"), text)
        return re.sub(r" \.\.\.(?= |$)", "", text)

    def _neighbours_name(self) -> str:
        """Return the name of another network namespace, in which the rules are in place."""
        if self._neighbour is None:
            self._neighbour = self._stack.enter_context(Namespace("n"))
            assert self._neighbour.tool().code == 0
        return self._neighbour.name

    def _block(self, block: Block) -> str:
        if block.needs:
            return ""
        if block.kind == "python":
            return "\n".join(
                self.failed(Command(block.page, block.line, f"python3 -c {shlex.quote(block.text)}"))
            )
        if block.kind in ("yaml", "json"):
            load = yaml.safe_load_all if block.kind == "yaml" else lambda text: [json.loads(text)]
            mistakes = [m for document in load(block.text) for m in _argument_mistakes(document)]
            return f"{block.page}:{block.line}: {mistakes}" if mistakes else ""
        return ""


#: What pages call FILE.
MANIFEST = """
apiVersion: v1
kind: Pod
metadata:
  name: shop
  annotations:
    traffic.sidecar.istio.io/excludeOutboundIPRanges: 10.20.0.0/16
    traffic.sidecar.istio.io/excludeInboundPorts: "9090"
spec:
  containers:
    - name: shop
      image: registry.example/shop:1
    - name: istio-proxy
      image: registry.example/proxy:1
      securityContext: {runAsUser: 1337, runAsGroup: 1337}
"""


def _made(text: str) -> str:
    """Return what a `make` command does that has to be tried: arguments of the tool, or nothing."""
    words = shlex.split(text, comments=True)
    targets = [word for word in words[1:] if "=" not in word]
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets, text
    assert known.issuperset(targets), text
    arguments = [word.removeprefix("ARGS=") for word in words if word.startswith("ARGS=")]
    return f"istio-iptables {arguments[0]}" if targets == ["run"] and arguments else ""


def _argument_mistakes(document: object) -> list[str]:
    """Return what is wrong with the arguments of istio-iptables containers, anywhere in a document."""
    if isinstance(document, list):
        return [mistake for member in document for mistake in _argument_mistakes(member)]
    if not isinstance(document, dict):
        return []
    found = [mistake for value in document.values() for mistake in _argument_mistakes(value)]
    arguments = document.get("args")
    if isinstance(arguments, list) and arguments[:1] == ["istio-iptables"]:
        found += read_arguments([str(word) for word in arguments]).mistakes
    return found


@pytest.mark.parametrize("text", ["istio-iptables --bogus; echo", "istio-iptables --bogus\ntrue"])
def test_a_part_of_a_command_that_fails_is_seen(text):
    with Sandbox() as sandbox, Scene("ipv4", sandbox) as place:
        (wrong,) = place.failed(Command("page.md", 1, text))
    assert "exit code 2" in wrong


def test_scenes_are_those_that_pages_ask_for():
    assert {step.scene for name in pages.PAGES for step in pages.read(name).steps} <= set(SCENES)


def test_the_demonstration_prints_what_the_readme_shows():
    shown = [b.text for b in pages.read("README.md").blocks if b.text.startswith("Two throw-away")]
    assert len(shown) == 1
    demo = subprocess.run(
        [sys.executable, str(ROOT / "tools/demo.py")], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert pages.matches(shown[0], demo.stdout), demo.stdout

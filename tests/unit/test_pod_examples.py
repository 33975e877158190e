"""The example in deploy/ and the page docs/pods.md say what the tool says."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from istio_iptables.pod.annotations import ANNOTATIONS, VARIABLES, VARIABLES_OF_CNI
from istio_iptables.pod.container import rights
from istio_iptables.pod.lint import KINDS
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.settings.resolve import parse
from tests.support import deploy
from tests.support.command import MAIN, ROOT, run
from tests.support.kubernetes import WRITING, validate
from tests.support.manifests import FACTS
from tests.support.pods import configured

pytestmark = pytest.mark.slow  # processes and schemas: left out of `make quick`

DOCS = (ROOT / "docs" / "pods.md").read_text(encoding="utf-8")


# --- deploy/ ----------------------------------------------------------------------------------


def objects(name: str) -> list[Any]:
    return list(yaml.safe_load_all((deploy.BASE / name).read_text(encoding="utf-8")))


def patched() -> Any:
    """The deployment as kustomize makes it: RFC 6902, of which one operation is used."""
    [deployment] = objects("deployment.yaml")
    [operation] = yaml.safe_load(deploy.PATCH.read_text(encoding="utf-8"))
    assert (operation["op"], operation["path"]) == ("add", "/spec/template/spec/initContainers/0")
    deployment["spec"]["template"]["spec"]["initContainers"].insert(0, operation["value"])
    return deployment


def test_the_patch_is_what_the_tool_prints():
    assert deploy.PATCH.read_text(encoding="utf-8") == deploy.patch(), "make golden writes it anew"


@pytest.mark.parametrize("name", ["namespace.yaml", "envoy.yaml", "deployment.yaml", "service.yaml"])
def test_the_example_is_valid(name: str):
    for thing in objects(name):
        validate(thing)


def test_the_patched_example_is_valid_and_says_the_same(tmp_path: Path):
    validate(patched())
    file = tmp_path / "patched.yaml"
    file.write_text(yaml.safe_dump(patched()))
    assert configured("--pod", str(file)) == configured("--pod", str(deploy.DEPLOYMENT))
    for manifest_file in (file, deploy.DEPLOYMENT):
        process = run("pod", "lint", str(manifest_file))
        assert (process.status, process.output) == (0, "")


def test_the_kustomization_names_every_file_and_what_it_patches():
    [kustomization] = objects("kustomization.yaml")
    files = {path.name for path in deploy.BASE.glob("*.yaml")} - {"kustomization.yaml"}
    assert {*kustomization["resources"], *(p["path"] for p in kustomization["patches"])} == files
    [deployment] = objects("deployment.yaml")
    assert kustomization["patches"][0]["target"] == {
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    [operation] = yaml.safe_load(deploy.PATCH.read_text(encoding="utf-8"))
    assert kustomization["images"][0]["name"] == operation["value"]["image"].partition(":")[0]
    [namespace] = objects("namespace.yaml")
    assert kustomization["namespace"] == namespace["metadata"]["name"]


# --- docs/pods.md -----------------------------------------------------------------------------


def blocks() -> list[str]:
    """The indented blocks of the page."""
    found = re.findall(r"(?m)(?:^    .*\n|^\n(?=    ))+", DOCS)
    return [re.sub(r"(?m)^    ", "", block).strip("\n") + "\n" for block in found]


def test_the_examples_in_the_docs_are_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    sessions = 0
    for block in blocks():
        if block.startswith("apiVersion: "):
            thing = yaml.safe_load(block)
            validate(thing)
            Path(f"{thing['metadata']['name']}.yaml").write_text(block)
        elif block.startswith("$ istio-iptables "):
            command, _, output = block[2:].partition("\n")
            words = shlex.split(command.removesuffix(" | tail -n 1"), comments=True)
            shown = run_in(tmp_path, *words[1:])
            assert ("".join(shown.splitlines(keepends=True)[-1:]) if "| tail" in command else shown) == output
            sessions += 1
    assert sessions == 5
    assert len(list(tmp_path.glob("*.yaml"))) == 2


def run_in(directory: Path, *arguments: str) -> str:
    return run(*arguments, code=f"import os; os.chdir({str(directory)!r})\n" + MAIN).output


def test_every_other_command_in_the_docs_is_understood():
    readme = (deploy.BASE / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"(?m)^    (?:kubectl .* \| )?(istio-iptables .*)$", DOCS + readme)
    assert len(commands) >= 4
    for command in commands:
        assert read_arguments(shlex.split(command)[1:]).mistakes == ()


#: The first cells of the table of what an init container may do.
PRIVILEGES = re.findall(r"(?m)^\| (.*?) \| (?:user|0|the proxy's) \|", DOCS)


@pytest.mark.parametrize("name", PRIVILEGES[1:])
def test_the_privileges_in_the_docs(name: str):
    [(user, added)] = re.findall(rf"(?m)^\| {re.escape(name)} \| (.*?) \| (.*?) \|$", DOCS)
    wanted = [*(WRITING if "too" in added else []), *re.findall("[A-Z_]{5,}", added)]
    for words in re.findall("`(.*?)`", name) or [""]:
        flags = [f"{word}=x" if word == "--network-namespace" else word for word in words.split()]
        granted = rights(parse(read_arguments(flags).settings, FACTS))
        assert (granted.user, list(granted.capabilities)) == (0 if user == "0" else 1337, wanted)


def test_the_tables_in_the_docs():
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"(?m)^\|.*\|$", DOCS)]
    named = {row[0]: row[1:] for row in rows}
    for a in ANNOTATIONS:
        name = f"`{a.name}`" + (f" (deprecated: `{a.deprecated}`)" if a.deprecated else "")
        default = f"`{a.default}`" if a.default else ""
        assert named.pop(name) == [f"`-{a.setting.short}`, `{a.setting.flag}`", default]
    for variable, setting in VARIABLES.items():
        by_cni = VARIABLES_OF_CNI.get(variable)
        more = f"; with `--cni-mode` `{by_cni.flag}` too" if by_cni else ""
        assert named.pop(f"`{variable}`") == [f"`{setting.flag}`{more}"]
    for kind, about in KINDS.items():
        assert named.pop(f"`{kind}`") == [about]
    for name in PRIVILEGES:
        named.pop(name)
    assert set(named) == {"annotation", "variable of `istio-proxy`", "kind", "---"}


def test_the_python_in_the_docs():
    results = doctest.testfile(str(ROOT / "docs" / "pods.md"), module_relative=False)
    assert (results.failed, results.attempted) == (0, 4)

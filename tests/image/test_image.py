"""The image by itself: what is in it, what is not, and how it behaves under the restrictions of a pod."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.image.podman import (
    ALONE,
    ARGUMENTS,
    BASE,
    CNI_IMAGE,
    IMAGE,
    INIT_CONTAINER,
    describe,
    engine,
    new_name,
    remove,
    run,
    shell,
    tool,
)

#: Megabytes that each image may have over its base.
MOST = {IMAGE: 30.0, CNI_IMAGE: 120.0}
#: For what is true of the init container's image and of that of the CNI plugin's installer.
of_both = pytest.mark.parametrize("image", MOST)


# --- how it is called -----------------------------------------------------------------------


def test_both_forms_of_arguments_mean_the_same() -> None:
    new = tool("istio-iptables", *ARGUMENTS, "--dry-run").out
    assert "-A ISTIO_INBOUND -p tcp -m tcp --dport 15090 -j RETURN" in new
    assert tool(*ARGUMENTS, "--dry-run").out == new
    assert tool(*ARGUMENTS, "--dry-run", entrypoint="istio-iptables istio-iptables").out == new


def test_clean_has_its_own_name() -> None:
    assert "cleanup" in tool("--help", entrypoint="istio-clean-iptables").out
    assert "nothing to do" in tool(entrypoint="istio-clean-iptables").err
    tool("render", code=2, entrypoint="istio-clean-iptables")


def test_help_completion_and_mistakes() -> None:
    """What goes through Typer, some of whose own requirements are left out."""
    assert "--istio-inbound-ports" in tool("--help").out
    assert "--explain" in tool("render", "--help").out
    in_bash = tool("-c", "istio-iptables --show-completion; :", entrypoint="/bin/bash")
    assert "complete" in in_bash.out
    done = tool("--no-such-flag", "-p", "x", code=2)
    assert done.out == ""
    assert [line.split(":")[0] for line in done.err.splitlines()] == ["--no-such-flag", "--envoy-port (-p)"]
    tool("render", "--format", "nonsense", code=2)
    tool("nonsense", code=2)


def test_settings_come_from_the_environment_and_from_files(tmp_path: Path) -> None:
    """PyYAML and netaddr work, though parts of netaddr are left out."""
    file = tmp_path / "settings.yaml"
    file.write_text("istio-inbound-ports: '8080,9090'\nistio-service-exclude-cidr: 10.0.0.0/9,10.128.0.0/9\n")
    mount = (f"--volume={file}:/settings.yaml:ro",)
    arguments = ("--config", "/settings.yaml", "--compact", "--dry-run")
    done = tool(*arguments, options=(*ALONE, *INIT_CONTAINER, *mount), env={"ENVOY_PORT": "15999"})
    assert "-p tcp -m multiport --dports 8080,9090 -j ISTIO_IN_REDIRECT" in done.out
    assert "-d 10.0.0.0/8 -j RETURN" in done.out
    assert "--to-ports 15999" in done.out


# --- what is in it --------------------------------------------------------------------------


@of_both
def test_what_it_says_of_itself(image: str) -> None:
    known = describe(image)
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    config = known["Config"]
    assert isinstance(config, dict)
    assert config["Entrypoint"] == ["istio-iptables"]
    assert not config.get("User")  # root, in which an init container differs from what runs after it
    prefix = "org.opencontainers.image."
    labels = config["Labels"]
    asked = [sys.executable, str(Path(__file__).parents[2] / "tools/version.py")]
    version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    assert labels[prefix + "version"] == version
    assert labels[prefix + "licenses"] == setup["metadata"]["license"]
    name = setup["metadata"]["name"]
    assert labels[prefix + "title"] == {IMAGE: name, CNI_IMAGE: f"{name}-cni"}[image]
    assert {prefix + name for name in ("description", "revision", "source", "base.name")} <= labels.keys()
    assert BASE in ("", labels[prefix + "base.name"])
    assert os.environ.get("REVISION", "") in ("", labels[prefix + "revision"])


@of_both
@pytest.mark.skipif(not BASE, reason="the base is not known: see make image-test")
def test_size_over_the_base(image: str) -> None:
    whole, below = describe(image)["Size"], describe(BASE)["Size"]
    assert isinstance(whole, int)
    assert isinstance(below, int)
    assert 0 < (whole - below) / 1e6 < MOST[image]


COMPILERS = "gcc cc g++ c++ cpp clang tcc as ld make rustc go"
INSTALLERS = "pip pip3 easy_install uv"
#: Prints each compiler and each installer of Python packages that is there: command, module, or wheel.
FIND_TOOLS = rf"""
for command in {COMPILERS} {INSTALLERS}; do command -v $command; done
for python in python3 /usr/bin/python3 /usr/local/bin/python3; do
    for module in pip ensurepip setuptools wheel; do
        $python -c "import $module; print('$python', '$module')" 2>/dev/null
    done
done
find / -xdev \( -name '*.whl' -o -name 'cc1*' -o -path '*/pip/__main__.py' -o -path '*/ensurepip/*.py' \)
true
"""


@of_both
def test_no_compiler_and_no_installer(image: str) -> None:
    assert shell(FIND_TOOLS, image) == (0, "", "")
    if BASE:  # that has pip, so there is something that the image does without
        assert re.search("ensurepip|pip", shell(FIND_TOOLS, image=BASE).out)


@of_both
def test_of_programs_only_python_and_our_own(image: str) -> None:
    """Dependencies bring others (`netaddr`, `typer`), and venv what people type into shells, and headers."""
    folder, programs = (shell(f"ls -A /opt/istio-iptables/{name}", image).out.split() for name in ("", "bin"))
    more = {"libexec"} if image == CNI_IMAGE else set()  # what starts the plugin on a node
    assert set(folder) - {"lib64"} == {"bin", "lib", "pyvenv.cfg", "sbom.cdx.json"} | more
    assert {re.sub(r"^python[0-9.]*$", "python", name) for name in programs} == {
        "python",
        "istio-iptables",
        "istio-clean-iptables",
        "istio-iptables-cni",
    }


@of_both
def test_the_bill_of_materials_has_what_is_installed(image: str) -> None:
    done = shell(
        "cat /opt/istio-iptables/sbom.cdx.json; ls /opt/istio-iptables/lib/python3*/site-packages", image
    )
    document, _, listed = done.out.rpartition("\n}\n")
    bill = json.loads(document + "}")
    found = {f"{part['name'].replace('-', '_')}-{part['version']}" for part in bill["components"]}
    installed = {name.lower() for name in re.findall(r"(\S+)\.dist-info", listed)}
    assert found == {name for name in installed if not name.startswith("istio_iptables-")}
    assert {name.rpartition("-")[0] for name in found} >= {"netaddr", "pyyaml"}
    assert any(name.startswith("kubernetes-") for name in found) == (image == CNI_IMAGE)


@of_both
def test_nothing_of_where_it_was_built_is_in_it(image: str) -> None:
    """What the build was told in secrets, what it downloaded, and what it wrote down."""
    places = "/etc/apt/apt.conf /etc/pip.conf /run/secrets /root/.cache /tmp /var/tmp /var/lib/apt/lists"
    find = f"find {places} /var/log/apt /var/log/dpkg.log -type f -size +0 2>/dev/null; true"
    assert shell(find, image) == (0, "", "")
    assert shell(f"echo x >/etc/pip.conf; {find}").out == "/etc/pip.conf\n"


@of_both
def test_everything_is_bytecode_already(image: str) -> None:
    """Python reads no source, whatever it is used for, and so would write no bytecode either."""
    cases = [
        ["--dry-run"],
        ["--help"],
        ["--native-nftables"],
        ["--config", "/dev/null", "--compact"],
        ["-p", "x"],
    ]
    for arguments in [*cases, ["--force-iptables-binary", "nft"], ["diff", "--json"], ["cleanup"]]:
        folder = "/opt/istio-iptables/bin"
        verbose = f"{folder}/python -ISv {folder}/istio-iptables"  # it would ignore PYTHONVERBOSE
        told = run(*arguments, entrypoint=verbose, image=image).err
        loaded = re.findall(r"# code object from '?([^'\n]+)'?", told)
        assert len([name for name in loaded if name.endswith(".pyc")]) > 10, arguments
        assert [name for name in loaded if name.endswith(".py")] == [], arguments


def test_nothing_is_written_where_it_could_be() -> None:
    """Even with a writable file system, a run leaves it as it was."""
    writable = ("--cap-drop=all", "--cap-add=NET_ADMIN", "--cap-add=NET_RAW")
    changes = []
    for words in (
        ["--entrypoint=/bin/true", IMAGE],
        [IMAGE, *ARGUMENTS],
        [IMAGE, "--native-nftables"],
        [IMAGE, "--help"],
        [IMAGE, "cleanup"],
        ["--entrypoint=/bin/sh", IMAGE, "-c", "touch /opt/istio-iptables/x"],
    ):
        name = new_name()
        try:
            engine("run", f"--name={name}", *ALONE, *writable, *words)
            changes.append(engine("diff", name).out)
        finally:
            remove(name)
    nothing, *runs, something = changes
    assert runs == [nothing] * len(runs)
    assert "/opt/istio-iptables/x" in something.removeprefix(nothing)


# --- under restrictions ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "backend",
    [[], ["--force-iptables-binary=legacy"], ["--force-iptables-binary=nft"], ["--native-nftables"]],
)
def test_read_only_and_with_two_capabilities(backend: list[str]) -> None:
    """As strict as it gets; the lock file is in the image, so it can still be locked."""
    assert "done: the rules are as planned" in tool(*backend, *ARGUMENTS).err
    cannot_write = (
        "for f in /run/x /run/xtables.lock /tmp/x /opt/x; do ! touch $f 2>/dev/null || exit 1; done"
    )
    done = run("-c", cannot_write, entrypoint="/bin/sh", options=(*ALONE, *INIT_CONTAINER))
    assert done.code == 0, done


def test_lock_file_that_cannot_be_made_on_a_read_only_file_system() -> None:
    done = tool(*ARGUMENTS, code=1, env={"XTABLES_LOCKFILE": "/run/other.lock"})
    assert "the lock file /run/other.lock cannot be opened: Read-only file system" in done.err
    assert "what to do: " in done.err
    assert "--cni-mode" in done.err
    tool(*ARGUMENTS, "--cni-mode", env={"XTABLES_LOCKFILE": "/run/other.lock"})


def test_something_empty_is_mounted_where_the_lock_file_was() -> None:
    tmpfs = (*INIT_CONTAINER[:-1], "--tmpfs=/run")
    tool(*ARGUMENTS, options=(*ALONE, *tmpfs))


@pytest.mark.parametrize(
    ("added", "named"),
    [
        ([], "the capabilities NET_ADMIN and NET_RAW are missing"),
        (["--cap-add=NET_RAW"], "the capability NET_ADMIN is missing"),
        (["--cap-add=NET_ADMIN"], "the capability NET_RAW is missing"),
    ],
)
def test_missing_capability_is_named(added: list[str], named: str) -> None:
    options = (*ALONE, "--cap-drop=all", *added, "--security-opt=no-new-privileges", "--read-only")
    done = tool(*ARGUMENTS, code=1, options=options)
    assert named in done.err
    assert "securityContext.capabilities.add" in done.err
    tool(*ARGUMENTS, "--dry-run", options=options)


def test_as_the_proxys_user() -> None:
    """UID 1337 may do whatever needs no rights, and is told what the rest needs."""
    options = (*ALONE, "--user=1337:1337", "--cap-drop=all", *INIT_CONTAINER[3:])
    assert tool(*ARGUMENTS, "--dry-run", options=options).out.startswith("*nat\n")
    assert "--explain" in tool("render", "--help", options=options).out
    tool(*ARGUMENTS, "--skip-rule-apply", options=options)
    assert "NET_ADMIN and NET_RAW are missing" in tool(*ARGUMENTS, code=1, options=options).err


def test_start_time(capsys: pytest.CaptureFixture[str]) -> None:
    """No bound: it is for people to read. `true` is what the engine takes by itself."""
    cases = {
        "true": ("/bin/true", []),
        "istio-iptables -n": ("", ["-n"]),
        "apply": ("", list(ARGUMENTS)),
        "--help": ("", ["--help"]),
    }
    for label, (entrypoint, arguments) in cases.items():
        times = []
        for _ in range(5):
            begun = time.monotonic()
            tool(*arguments, entrypoint=entrypoint)
            times.append(time.monotonic() - begun)
        with capsys.disabled():
            print(f"\n  container, from start to end, {label}: {sorted(times)[2] * 1000:.0f} ms", end="")


def test_log_and_rules_come_through_apart() -> None:
    """`kubectl logs` shows both, but a pipe gets the rules alone."""
    done = tool("--dry-run", "--log_as_json")
    assert done.out.startswith("*")
    assert all(json.loads(line)["level"] for line in done.err.splitlines())

"""The completion scripts, in real shells."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from istio_iptables.settings.commands import COMMANDS
from istio_iptables.settings.declared import SETTINGS
from tests.support.command import run

pytestmark = pytest.mark.slow  # left out of `make quick`

#: A line of words, the last one unfinished, and what may stand there.
CASES = [
    (["-m", ""], {"REDIRECT", "TPROXY"}),
    (["istio-iptables", "-m", "T"], {"TPROXY"}),
    (["--force-iptables-binary", ""], {"legacy", "nft"}),
    (["--log_output_level", ""], {"debug", "info", "warn", "error", "fatal", "none"}),
    (["render", "--format", ""], {"restore", "nft", "commands", "json", "mermaid", "dot", "svg"}),
    (["pod", "args", "--format", ""], {"yaml", "json", "shell"}),
    (["pod", ""], {"args", "lint", "init-container"}),
    (["-p", "pod", "dif"], {"diff"}),  # `pod` is a value here
    (["-n", "dif"], {"diff"}),
    (["completion", ""], {"bash", "zsh", "fish"}),
    (["help", "val"], {"validate"}),
    (["render", "--expl"], {"--explain"}),
    (["diff", "--expl"], set()),
    (["--envoy-p"], {"--envoy-port"}),
]
ids = [" ".join(words) for words, _ in CASES]


def script(shell: str) -> str:
    process = run("completion", shell, DRY_RUN="not a boolean")  # needs no settings
    assert (process.status, process.errors) == (0, "")
    return process.output


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


def in_bash(words: list[str]) -> set[str]:
    code = script("bash") + (
        'COMP_WORDS=(istio-iptables "$@"); COMP_CWORD=$#; _istio_iptables; '
        '[[ ${#COMPREPLY[@]} == 0 ]] || printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", code, "bash", *words], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return set(done.stdout.split())


@needs("bash")
@pytest.mark.parametrize(("words", "wanted"), CASES, ids=ids)
def test_bash(words: list[str], wanted: set[str]):
    assert in_bash(words) == wanted


@needs("bash")
def test_bash_after_an_equals_sign():
    assert in_bash(["render", "--format", "=", "j"]) == {"json"}
    assert in_bash(["--dual-stack", "="]) == {"true", "false"}
    assert in_bash(["--format", "=", "json", "render", "--fam"]) == {"--family"}


@needs("bash")
def test_bash_offers_everything():
    flags = in_bash(["--"])
    assert {f"--{setting.name}" for setting in SETTINGS if setting.has_flag} <= flags
    assert in_bash([""]) == {command.words[0] for command in COMMANDS}


@needs("bash")
def test_bash_offers_files(tmp_path: Path):
    (tmp_path / "settings.yaml").touch()
    begun = str(tmp_path / "set")
    for words in (["--config", begun], ["pod", "lint", begun]):
        assert in_bash(words) == {str(tmp_path / "settings.yaml")}
    assert in_bash(["--envoy-port", begun]) == set()


@needs("fish")
@pytest.mark.parametrize(("words", "wanted"), CASES, ids=ids)
def test_fish(words: list[str], wanted: set[str], tmp_path: Path):
    (tmp_path / "script.fish").write_text(script("fish"))
    line = " ".join(["istio-iptables", *words])
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {tmp_path}/script.fish; complete -C '{line}'"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.stderr == ""
    assert {found.split("\t")[0] for found in done.stdout.splitlines()} == wanted


class Zsh:
    """An interactive zsh that has loaded the script."""

    def __init__(self, file: Path) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="dumb", PS1="> ", COLUMNS="200")
            os.execvp("zsh", ["zsh", "-f", "-i"])
        self.type(f"autoload -U compinit && compinit -u -D && source {file} && echo LOA''DED\n")
        assert "LOADED" in self.until("LOADED")

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def until(self, text: str) -> str:
        """Read until a text comes; give up after a minute."""
        seen, limit = "", time.monotonic() + 60
        while text not in seen and time.monotonic() < limit:
            if select.select([self.terminal], [], [], 1)[0]:
                seen += os.read(self.terminal, 4096).decode(errors="replace")
        return seen

    def end(self) -> None:
        os.close(self.terminal)
        os.waitpid(self.pid, 0)


@needs("zsh")
@pytest.mark.parametrize(
    ("line", "last"),
    [
        ("-m ", "TPROXY"),
        ("--force-iptables-binary ", "nft"),
        ("--log_output_level ", "warn"),
        ("render --format ", "restore"),
        ("render --format=", "restore"),
        ("pod args --format ", "yaml"),
        ("pod ", "lint"),
        ("completion ", "zsh"),
        ("", "version"),
    ],
    ids=str,
)
def test_zsh(line: str, last: str, tmp_path: Path):
    (tmp_path / "script.zsh").write_text(script("zsh"))
    zsh = Zsh(tmp_path / "script.zsh")
    try:
        zsh.type(f"istio-iptables {line}\t\t")
        assert last in zsh.until(last)
    finally:
        zsh.end()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_right_for_its_shell(shell: str):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(
        [shell, "-n"], input=script(shell), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")

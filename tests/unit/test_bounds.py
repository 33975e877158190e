"""Input without measure: refused with a message of its own, in few words, soon, and in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from istio_iptables.settings.parsers import MOST_MEMBERS
from istio_iptables.settings.texts import quoted, shown
from tests.support.command import ENVIRONMENT

#: The limits of what a run may take for input within the limits.
MEMORY, SECONDS = 300 << 20, 5.0
MIB = 1 << 20


class Ended:
    """How a run ended, and what it took."""

    def __init__(self, code: int, errors: str, memory: int, seconds: float) -> None:
        self.code, self.errors, self.memory, self.seconds = code, errors, memory, seconds


def run(*arguments: str, stdin: bytes = b"") -> Ended:
    """Run the command in a process whose memory and processor time are measured."""
    measured = (
        "import resource, sys\n"
        "from istio_iptables.__main__ import main\n"
        "code = main()\n"
        "usage = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(code, usage.ru_maxrss, usage.ru_utime + usage.ru_stime, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", measured, *arguments],
        input=stdin,
        capture_output=True,
        env=ENVIRONMENT,
        timeout=300,
        check=False,
    )
    *errors, last = done.stderr.decode().splitlines()
    code, memory, seconds = last.split()
    return Ended(int(code), "\n".join(errors), int(memory) << 10, float(seconds))


def refused(*arguments: str, why: str, stdin: bytes = b"") -> None:
    ended = run(*arguments, stdin=stdin)
    assert ended.code == 2, ended.errors[:1000]
    assert why in ended.errors
    assert len(ended.errors) < 30_000
    assert max(map(len, ended.errors.splitlines())) < 700
    assert "Traceback" not in ended.errors
    assert ended.memory < MEMORY
    assert ended.seconds < SECONDS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--config", "--pod"])
def test_a_file_that_is_too_large(file: Path, option: str) -> None:
    with file.open("wb") as opened:
        opened.truncate(17 * MIB)
    refused(option, str(file), "--dry-run", why="is too large: at most 16 MiB are read")
    refused(option, "/dev/zero", "--dry-run", why="is too large: at most 16 MiB are read")
    refused(option, "-", "--dry-run", stdin=bytes(17 * MIB), why="'-' is too large: at most 16 MiB are read")


@pytest.mark.slow
def test_a_file_of_unknown_settings(file: Path) -> None:
    unknown = [f"istio-outbound-porst-{number}: 80\n" for number in range(300_000)]
    file.write_text("".join(unknown))
    refused("--config", str(file), "--dry-run", why="is too large: at most 210000 lines are read")
    file.write_text("".join(unknown[:200_000]))
    refused("--config", str(file), "--dry-run", why="199900 more mistakes: correct these first")


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["-o", "-x", "-c", "-u", "-b", "--istio-outbound-ports"])
def test_a_list_that_is_too_long(file: Path, flag: str) -> None:
    name = {
        "-o": "istio-local-outbound-ports-exclude",
        "-x": "istio-service-exclude-cidr",
        "-b": "istio-inbound-ports",
    }
    name |= {"-c": "istio-exclude-interfaces", "-u": "proxy-uid"}
    key = name.get(flag, flag.removeprefix("--"))
    file.write_text(f"{key}: {','.join(['80'] * (MOST_MEMBERS + 1))}\n")
    refused("--config", str(file), "--dry-run", why=f"a list of {MOST_MEMBERS + 1} members is too long")


@pytest.mark.slow
def test_one_bad_value_of_megabytes(file: Path) -> None:
    file.write_text(
        f"proxy-uid: {'x' * 3 * MIB}\n? {'y' * MIB}\n: 80\nistio-inbound-tunnel-port: {'1' * MIB}\n"
    )
    refused("--config", str(file), "--dry-run", why="xxx'... (3145728 characters)")
    refused("-u", "x" * 100_000, "--dry-run", why="xxx'... (100000 characters)")
    refused("x" * 100_000, why="xxx'... (100000 characters)")
    refused(f"--{'x' * 100_000}", why="xxx... (100002 characters)")


@pytest.mark.slow
def test_a_bad_value_in_a_long_list(file: Path) -> None:
    file.write_text(f"istio-service-exclude-cidr: {','.join(['10.0.0.0/33'] * MOST_MEMBERS)}\n")
    refused("--config", str(file), "--dry-run", why="199900 more mistakes: correct these first")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, '{"a":' * 100_000, "- " * 100_000])
@pytest.mark.parametrize("option", ["--config", "--pod"])
def test_nesting_without_end(file: Path, text: str, option: str) -> None:
    file.write_text(text)
    refused(option, str(file), "--dry-run", why=str(file))


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--config", "--pod"])
def test_aliases_that_multiply(file: Path, option: str) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    file.write_text("\n".join([*lines, "proxy-uid: *a11", "kind: Pod", "spec: *a11", "metadata: *a11"]))
    ended = run(option, str(file), "--dry-run")
    assert ended.code == 2
    assert len(ended.errors) < 30_000
    assert ended.memory < MEMORY
    assert ended.seconds < SECONDS


@pytest.mark.slow
def test_a_list_as_long_as_may_be(file: Path) -> None:
    networks = ",".join(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(MOST_MEMBERS))
    file.write_text(f"istio-service-exclude-cidr: {networks}\n")
    ended = run("--config", str(file), "--native-nftables", "--dry-run")
    assert ended.code == 0, ended.errors[:1000]
    assert ended.memory < MEMORY


def test_a_text_in_a_message() -> None:
    assert quoted("it's") == '"it\'s"'
    assert quoted("a\nb") == "'a\\nb'"
    assert shown("a b") == "a b"
    assert shown("a\nb") == "a\\nb"
    for length, expected in ((200, ""), (201, "... (201 characters)")):
        assert quoted("x" * length) == repr("x" * 200) + expected
        assert shown("y" * length) == "y" * 200 + expected
    assert shown("x" * 300 + "\n") == "x" * 200 + "... (301 characters)"

"""The command as a process without privileges: its entry points, and what it may not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import LOG_LINE, MAIN, assert_refused, only_linux, run

pytestmark = pytest.mark.slow  # a process for each test: left out of `make quick`

CLEAN = "import sys; from istio_iptables.__main__ import clean; sys.exit(clean())"


# --- without privileges -----------------------------------------------------------------------


@only_linux
@pytest.mark.parametrize(
    "arguments", [[], ["apply"], ["cleanup"], ["diff"], ["cleanup", "-n"], ["--cleanup-only"]]
)
def test_without_capabilities_nothing_is_done(arguments: list[str]):
    process = run(*arguments)
    assert process.status == 1
    assert process.output == ""
    lines = process.errors.splitlines()
    assert all(LOG_LINE.fullmatch(line) for line in lines)
    assert "\terror\tthe capabilities NET_ADMIN and NET_RAW are missing" in process.errors
    assert "what to do: " in lines[-1]


@only_linux
def test_a_bad_network_namespace_is_reported_with_all_other_mistakes():
    process = run("--network-namespace", "/nowhere", "-p", "99999")
    assert_refused(process, "--network-namespace: '/nowhere' cannot be opened", "--envoy-port (-p): '99999'")


@only_linux
@pytest.mark.parametrize("name", ["network-namespace", "DRY_RUN_FILE_PATH"])
def test_paths_that_no_file_can_have(name: str, tmp_path: Path):
    file = tmp_path / "settings.json"
    for text in (r"a\u0000b", r"\ud800"):
        file.write_text(f'{{"{name}": "{text}"}}')
        process = run("-n", "--config", str(file))
        assert process.status == (2 if name == "network-namespace" else 1)
        assert name in process.errors
        assert "Traceback" not in process.errors


def test_what_nobody_has_thought_of_is_one_line_and_a_traceback_only_for_debugging():
    code = "import istio_iptables.cli.handlers as module\n"
    code += "def build(_): raise RuntimeError('two\\nlines')\nmodule.build = build\n"
    process = run("-n", code=code + MAIN)
    assert (process.status, process.output) == (1, "")
    (line,) = [line for line in process.errors.splitlines() if "\terror\t" in line]
    assert "unexpected RuntimeError two lines: bug in istio-iptables: please report it" in line
    assert "Traceback" not in process.errors
    assert "Traceback" in run("-n", "--log_output_level=debug", code=code + MAIN).errors


@only_linux
def test_what_the_network_namespace_is_needs_no_privilege_to_find_out():
    process = run("--network-namespace", "/proc/self/ns/net")
    assert process.status == 1
    assert "\terror\tthe network namespace /proc/self/ns/net may not be entered" in process.errors
    process = run("-n", "--network-namespace", "/proc/self/ns/net")
    assert process.status == 0
    assert "\twarn\tthe network namespace /proc/self/ns/net may not be entered" in process.errors
    assert process.output == run("-n").output


#: Ctrl-C comes while the handler that would report it is not there yet, or has ended.
BEFORE = "import istio_iptables.settings.go_flags as module\n"
BEFORE += "def read_arguments(_): raise KeyboardInterrupt\nmodule.read_arguments = read_arguments\n"
AFTERWARDS = """\
import istio_iptables.startup.c_modules as module
class Signal:
    SIGINT, SIG_IGN, getsignal = module.signal.SIGINT, module.signal.SIG_IGN, module.signal.getsignal
    default_int_handler = module.signal.default_int_handler
    def signal(self, number, handler, real=module.signal.signal, times=[1, 2]):
        if handler == self.SIG_IGN and times.pop() == 2:
            raise KeyboardInterrupt
        real(number, handler)
module.signal = Signal()
"""


@pytest.mark.parametrize(("code", "status"), [(BEFORE, 130), (AFTERWARDS, 2)], ids=["before", "afterwards"])
def test_ctrl_c_is_no_traceback_whenever_it_comes(code: str, status: int):
    process = run("rendr", code=code + MAIN)
    assert process.status == status
    assert "Traceback" not in process.errors


# --- entry points -----------------------------------------------------------------------------


@only_linux
def test_istio_clean_iptables_is_cleanup():
    process, cleanup = run("-p", "1", "--dual-stack", code=CLEAN), run("-p", "1", "--dual-stack", "cleanup")
    assert (process.status, process.output) == (cleanup.status, cleanup.output) == (1, "")
    assert [line.split("\t")[1:] for line in process.errors.splitlines()] == [
        line.split("\t")[1:] for line in cleanup.errors.splitlines()
    ]
    assert_refused(run("-p", "0", code=CLEAN), "--envoy-port (-p): '0' is not a port")
    assert_refused(run("--nonsense", code=CLEAN), "--nonsense: unknown flag")
    assert run("--help", code=CLEAN).output == run("cleanup", "--help").output


@only_linux
@pytest.mark.parametrize("flag", ["--log_target", "--network-namespace", "-p"])
def test_istio_clean_iptables_is_never_apply(flag: str):
    assert_refused(
        run(flag, code=CLEAN), f"--{'envoy-port (-p)' if flag == '-p' else flag[2:]}: needs a value"
    )

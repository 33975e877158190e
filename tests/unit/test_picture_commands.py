"""render with a picture's format, and report: what is written where, and what is refused."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.command import assert_refused, run
from tests.support.imports import expensive
from tests.support.picturing import svg_texts
from tests.unit.test_startup import MAIN, imported

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("style", ["svg", "mermaid", "dot"])
def test_render_draws(style):
    done = run("render", "--format", style, "-d", "15090")
    assert done.status == 0
    begins = {"svg": "<?xml", "mermaid": "---\ntitle:", "dot": "digraph packets {"}
    assert done.output.startswith(begins[style])
    assert "15090" in done.output


def test_render_lights_up_the_way_of_a_packet():
    done = run("render", "--format=svg", "--trace", "out --uid 1000 --to 10.1.2.3:80")
    assert "goes to 15001" in svg_texts(done.output)
    ends = run("render", "--format=svg", "--trace", "out --uid 1000 --to 10.1.2.3:80 --follow")
    assert "leaves the pod for 10.1.2.3:80" in svg_texts(ends.output)


def test_render_shows_one_family_if_that_is_asked_for():
    both = run("render", "--format=svg", "--dual-stack", "--family", "ipv4")
    assert "::1" not in svg_texts(both.output)


def test_native_rules_are_drawn():
    done = run("render", "--format=svg", "--native-nftables")
    assert "istio-proxy-nat (nftables), priority -100" in svg_texts(done.output)


def test_what_is_for_pictures_alone_is_refused_elsewhere():
    assert_refused(run("render", "--trace", "out --to 1.2.3.4:80"), "--trace: only for pictures")
    assert_refused(run("render", "--format", "json", "--live"), "--live: only for pictures")


def test_a_bad_packet_is_refused():
    refused = run("render", "--format", "svg", "--trace", "out --to x --mark y")
    assert_refused(refused, "--trace: --to: 'x'", "--trace: --mark: 'y'")
    assert_refused(
        run("render", "--format", "svg", "--trace", "out --to 10.0.0.1"), "--trace: --to: needs a port"
    )


def test_explain_has_no_effect_on_a_picture():
    done = run("render", "--format", "dot", "--explain")
    assert done.status == 0
    assert "--explain has no effect with a picture" in done.errors


# --- report -----------------------------------------------------------------------------------


def test_report_needs_a_file():
    assert_refused(run("report"), "--html: needs a file to write")


def test_report_to_standard_output():
    done = run("report", "--html", "-", "-x", "10.0.0.0/8", "--own", "10.9.8.7")
    assert done.status == 0
    assert done.output.startswith("<!DOCTYPE html>")
    assert "10.0.0.0/8" in done.output
    assert "10.9.8.7:40000" in done.output


def test_report_replaces_a_file(tmp_path: Path):
    path = tmp_path / "report.html"
    path.write_text("old")
    path.chmod(0o640)
    before = path.stat()
    done = run("report", "--html", str(path))
    assert (done.status, done.output) == (0, "")
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert path.stat().st_ino != before.st_ino  # not written into: a reader has the old or the new one
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_a_new_report_has_the_mode_of_a_new_file(tmp_path: Path):
    umask = os.umask(0o027)
    try:
        run("report", "--html", str(tmp_path / "report.html"))
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "report.html").stat().st_mode) == 0o640


def test_a_symbolic_link_stays_one(tmp_path: Path):
    (tmp_path / "link.html").symlink_to("report.html")
    assert run("report", "--html", str(tmp_path / "link.html")).status == 0
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.skipif(sys.platform != "linux", reason="a device of Linux")
def test_a_device_is_written_to():
    done = run("report", "--html", "/dev/null")
    assert done.status == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("name", ["no/such/folder.html", ".", "a\0b"])
def test_a_report_that_cannot_be_written_is_an_error(tmp_path: Path, name: str):
    if "\0" in name:
        pytest.skip("no shell can pass it on")
    done = run("report", "--html", str(tmp_path / name))
    assert done.status == 1
    assert "cannot be written" in done.errors
    assert "Traceback" not in done.errors
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_report():
    done = run("report", "--html", "/dev/full")
    assert done.status == 1
    assert "cannot be written: No space left on device" in done.errors


# --- cost -------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="the facts are read otherwise")
@pytest.mark.parametrize("arguments", ["'render', '--format', 'svg'", "'report', '--html', '-'"])
def test_a_picture_imports_nothing_that_it_does_not_need(arguments: str):
    modules = imported(f"{MAIN}\nassert main([{arguments}]) == 0")
    assert "istio_iptables.pictures.svg" in modules
    assert not {"typer", "netaddr", "yaml", "iptc"} & (expensive(modules) | modules)


def test_an_svg_is_xml():
    ElementTree.fromstring(run("render", "--format", "svg").output)

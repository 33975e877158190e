"""The benchmark's own logic: statistics, ratios, tables, documents, extrapolation. Nothing is timed here."""

from __future__ import annotations

import copy
import doctest
import io
import json
import re
import sys
import tarfile
import types

import netaddr
import pytest
import yaml

from tests.bench import __main__ as command
from tests.bench import cni, datapath, document, image, lists, machine, many, processes, runs, scale, tables
from tests.bench.figures import met, ratio, spread
from tests.bench.timing import Figures

pytestmark = pytest.mark.slow  # left out of `make quick`

RESULTS = json.loads(document.RESULTS.read_text())
DOCUMENTS = [document.BENCHMARKS, document.SCALE]


@pytest.fixture
def results():
    return copy.deepcopy(RESULTS)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


# --- statistics -----------------------------------------------------------------------------


def test_a_spread_is_median_lowest_and_highest_in_any_order():
    assert spread([5.0, 1.0, 9.0, 2.0]) == {"median": 3.5, "low": 1.0, "high": 9.0}
    assert spread([4.0]) == {"median": 4.0, "low": 4.0, "high": 4.0}


def test_a_ratio_is_to_the_sum_of_its_base():
    assert ratio(30.0, 8.0, 2.0) == 3.0


@pytest.mark.parametrize(("reached", "will_do"), [(2.9, True), (3.0, True), (3.004, True), (3.006, False)])
def test_a_figure_is_judged_as_it_is_shown(reached: float, will_do: bool):
    assert met({"what": "x", "unit": "times", "wanted": 3.0, "reached": reached}) is will_do


@pytest.mark.parametrize("module", [tables, scale, lists, machine], ids=lambda module: module.__name__)
def test_examples_in_the_modules(module: types.ModuleType):
    outcome = doctest.testmod(module)
    assert outcome.attempted
    assert not outcome.failed


# --- what is measured -----------------------------------------------------------------------


def test_whole_runs_are_compared_with_the_loader_of_their_own_kind():
    row: Figures = {"wall": spread([1.0]), "cpu": spread([0.5]), "peak": 1.0, "tree": 1.0, "processes": 1}
    loaders = {" ".join(way.loader[:2]): 1.0 + number for number, way in enumerate(runs.WAYS[1:])}
    found: dict[str, Figures] = {runs.BARE: row}
    found |= {name: {**row, "wall": spread([wall])} for name, wall in loaders.items()}
    found |= {f"{way.name}/{runs.APPLY}": {**row, "wall": spread([12.0])} for way in runs.WAYS}
    reached = {line["way"]: line["times"] for line in runs.rows_of(found) if line["way"]}
    assert reached == {"libiptc": 6.0, "legacy": 6.0, "nft variant": 4.0, "native": 3.0}


def test_scattered_cidrs_do_not_merge_and_adjacent_ones_do():
    assert len(netaddr.cidr_merge(lists.scattered(20_000))) == 20_000
    assert len(netaddr.cidr_merge(lists.adjacent(16_384))) == 1


def test_lists_are_as_long_as_they_say(tmp_path):
    for load in lists.loads(lists.COUNTS):
        (value,) = lists.settings(load).values()
        assert len(set(value.split(","))) == load.entries
    as_json, as_yaml = (
        lists.write(lists.Load(kind, 7, ()), tmp_path)[-1] for kind in (lists.SCATTERED, lists.YAML)
    )
    with open(as_json) as one, open(as_yaml) as other:
        assert json.load(one) == yaml.safe_load(other)
    assert as_json.endswith(".json")
    assert as_yaml.endswith(".yaml")


@pytest.mark.parametrize("cidrs", [lists.scattered, lists.adjacent])
def test_the_excluded_destination_comes_last_and_the_captured_one_is_not_in_the_list(cidrs):
    networks = [netaddr.IPNetwork(cidr) for cidr in [*cidrs(20_000), datapath.LAST]]
    assert max(networks) == netaddr.IPNetwork(datapath.LAST)
    assert all(address in networks[-1] for address in datapath.CALLED)
    assert datapath.CAPTURED not in netaddr.IPSet(networks)


def test_with_everything_long_the_application_is_of_the_last_group_and_calls_no_excluded_port():
    long = [variant for variant in datapath.variants() if variant.groups]
    assert [variant.groups for variant in long] == [64, 40, 64]
    for variant in long:
        groups = variant.variables["ISTIO_OUTBOUND_OWNER_GROUPS"].split(",")
        assert (len(set(groups)), groups[-1]) == (variant.groups, str(datapath.APP_UID))
        ports = variant.settings["istio-local-outbound-ports-exclude"].split(",")
        assert len(set(ports) - {str(datapath.PORT)}) == 1_000
        assert len(variant.settings["istio-service-exclude-cidr"].split(",")) == 20_000


def test_waiting_is_what_exceeds_the_sleep_of_runs_with_locks_of_their_own():
    def row(manner: str, *asleep: float) -> dict:
        return {"at_once": 10, "manner": manner, "asleep": spread(asleep)}

    rows = [
        row(many.OWN, 1.0, 2.0, 3.0),
        row(many.CNI, 0.5),
        row(many.SHARED, 4.0, 5.0, 9.0),
        row(many.NATIVE, 9),
    ]
    waiting = {row["manner"]: row["waiting"] for row in many.with_waiting(rows)}
    assert waiting == {
        many.OWN: None,
        many.CNI: {"median": 0.0, "high": 0.0},
        many.SHARED: {"median": 3.0, "high": 7.0},
        many.NATIVE: None,
    }


def test_the_layers_of_a_saved_image_are_weighed_as_they_are_and_compressed():
    saved = io.BytesIO()
    files = {
        "manifest.json": json.dumps([{"Layers": ["a.tar", "b/layer.tar"]}]).encode(),
        "a.tar": b"a" * 100_000,
        "b/layer.tar": bytes(range(256)),
    }
    with tarfile.open(fileobj=saved, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    saved.seek(0)
    first, second = image.layers(saved)
    assert first["unpacked"] == 100_000
    assert 50 < first["compressed"] < 1_000
    assert second["unpacked"] == 256 < second["compressed"]


def test_a_process_that_is_forked_while_memory_is_summed_up_does_not_count(monkeypatch):
    running = [1]

    def look(pid: int):
        if pid == 1:
            running.append(2)
        return (str(pid),), 10

    monkeypatch.setattr(processes, "_look", look)
    assert processes.memory(pid for pid in running) == 10


# --- tables ---------------------------------------------------------------------------------


def test_a_table_has_as_many_cells_in_each_row_and_escapes_bars():
    lines = tables.table(["a", "b", "c"], [["x|y", "1", "2"]], texts=2).splitlines()
    assert [cells(line) for line in lines] == [["a", "b", "c"], ["---", "---", "---:"], [r"x\|y", "1", "2"]]


@pytest.mark.parametrize("name", tables.SECTIONS)
def test_every_row_is_shown_in_full(name: str, results):
    header, _, *rows = tables.section(name, results).splitlines()
    assert len(rows) == len(results[name]["rows"])
    assert {len(cells(row)) for row in rows} == {len(cells(header))}


def test_times_are_shown_with_how_far_they_went():
    assert tables.us({"median": 0.00004, "low": 0.000031, "high": 0.0015}) == "40.0 (31.0-1,500)"


def test_what_this_system_does_not_tell_is_not_shown_as_nothing():
    assert tables.mb(None) == "?"
    assert tables.mb(1_250_000) == "1.2"
    assert tables.mb(123_400_000) == "123"


def test_everything_that_was_wanted_is_checked(results):
    wanted = [(check["what"], check["wanted"]) for check in tables.all_checks(results)]
    assert len(set(wanted)) == len(wanted)
    for way in ("libiptc", "legacy", "nft variant", "native"):
        apply, second = (2.2, 1.6) if way == "libiptc" else (3.0, 3.0)
        assert (f"{way}: {runs.APPLY}", apply) in wanted
        assert (f"{way}: {runs.SECOND}", second) in wanted
        assert (f"{way}: {runs.RECONCILE}", 3.0) in wanted
        assert (f"{way}: {runs.CLEANUP}", 3.0) in wanted
    for way in ("libiptc", "legacy", "nft variant", "native", "libiptc --compact"):
        assert (f"{way}: growth from 10,000 CIDRs to 20,000", 2.2) in wanted
        most = 4.0 if way in ("native", "libiptc --compact") else 3.0
        assert (f"{way}: apply of 20,000 CIDRs", most) in wanted
    assert ("libiptc: --dry-run", 1.25) in wanted
    assert ("libiptc: --help", 3.0) in wanted
    assert ("native: a connection with 20,000 CIDRs beside one with 10", 1.1) in wanted
    assert [wanted for what, wanted in wanted if what == "CNI plugin: ADD"] == [60.0, 3.0]
    assert [wanted for what, wanted in wanted if what.startswith("peak memory")] == [40.0]


def test_growth_is_from_the_second_largest_list_to_the_largest(results):
    for row in results["lists"]["rows"]:
        row["wall"] = spread([row["count"] / 1_000 + (10 if row["count"] == 20_000 else 0)])
    growth = [check for check in lists.checks(results["lists"]) if "growth" in check["what"]]
    assert {check["reached"] for check in growth} == {3.0}


def test_what_is_missed_is_counted_and_marked(results):
    for row in results["runs"]["rows"]:
        row["times"] = row["times"] and 1.0
        row["peak"] = 1.0
    for row in results["lists"]["rows"]:
        row["wall"], row["times"] = spread([1.0]), 1.0
    for row in results["datapath"]["rows"]:
        row["cost"] = spread([1.0])
    for row in (*results["see"]["rows"], *results["prove"]["rows"]):
        row["wall"] = spread([0.1])
    for row in results["cni"]["rows"]:
        row["wall"], row["times"] = spread([0.06]), row["times"] and 3.0
    assert tables.checks(results).startswith("All figures are as wanted.")
    assert "missed" not in tables.checks(results)
    next(row for row in results["runs"]["rows"] if row["what"] == runs.RECONCILE)["times"] = 3.01
    said = tables.checks(results)
    assert said.startswith(f"1 of {len(tables.all_checks(results))} figures are not as wanted.")
    assert [cells(line)[3] for line in said.splitlines() if "**missed**" in line] == ["3.01"]


def test_a_report_has_what_was_measured_and_no_more(results):
    assert tables.report(results).count("\n## ") == len(tables.SECTIONS) + 1
    only = tables.report({name: results[name] for name in ("machine", "many")})
    assert re.findall("^## (.*)", only, re.MULTILINE) == ["Measured on", "Many pods at once"]


# --- extrapolation --------------------------------------------------------------------------


def test_what_follows_is_the_formula_over_what_was_measured(results):
    row = next(
        row for row in results["many"]["rows"] if (row["at_once"], row["manner"]) == (scale.MOST, many.OWN)
    )
    row |= {"cpu": 0.04, "memory": 50e6, "total": spread([2.0])}
    results["many"]["cores"] = 2
    found = scale.values(results)
    assert found["C"] == pytest.approx(20.0)
    assert found["e"] == pytest.approx(0.5)
    assert found["T8"] == pytest.approx(5.0)
    assert found["M5"] == pytest.approx(500e6)


def test_without_an_image_its_bytes_are_not_measured_rather_than_zero(results):
    results["image"] = None
    found = scale.values(results)
    assert [found[name] for name in ("b", "bo", "d", "B", "Bo", "R")] == [None] * 6
    assert "| B | bytes that 5,000 nodes fetch | 5000 x b | not measured |" in scale.outcome(results)


def test_what_the_cni_plugin_adds(results):
    calls = {scale.ADDS: (0.03, 1.5), cni.BRIDGE: (0.01, 0.02)}
    rows = [{"what": w, "cpu": spread([c]), "wall": spread([t])} for w, (c, t) in calls.items()]
    results["cni"] = {"rows": rows}
    found = scale.values(results)
    assert [found[name] for name in ("A", "Ab", "A5")] == pytest.approx([15.0, 5.0, 15.0])
    results["cni"] = None
    assert scale.values(results)["A"] is None


def test_every_row_that_a_figure_is_from_exists(results):
    rows = {f"{row['way']}: {row['what']}" for row in results["runs"]["rows"]}
    rows |= {f"{row['at_once']} at once, {row['manner']}" for row in results["many"]["rows"]}
    rows |= {cni.BRIDGE, cni.MANY.format(count=cni.AT_ONCE)}
    columns = {
        heading.removesuffix(", ms").removesuffix(", MB")
        for heading, _ in (*tables.WHOLE_RUNS, *tables.MANY, *tables.PLUGIN)
    }
    for figure in scale.MEASURED:
        row, _, column = figure.source.rpartition(": ")
        assert (row in rows and column in columns) or not row, figure


def test_no_symbol_is_there_twice_and_the_text_names_none_that_is_not_there():
    symbols = [figure.symbol for figure in (*scale.MEASURED, *scale.FORMULAS)]
    assert len(set(symbols)) == len(symbols)
    named = re.findall(r"`([A-Za-z]{1,2}\d*)`", document.SCALE.read_text())
    assert set(named) <= set(symbols)
    assert len(named) >= 10


# --- documents ------------------------------------------------------------------------------

TEXT = "before\n<!-- begin: x (note) -->\nold\n<!-- end: x -->\nafter\n"


def test_what_stands_between_markers_is_replaced_and_nothing_else():
    filled = document.fill(TEXT, {"x": lambda: "new"})
    assert filled == "before\n<!-- begin: x (note) -->\n\nnew\n\n<!-- end: x -->\nafter\n"
    assert document.fill(filled, {"x": lambda: "new"}) == filled


@pytest.mark.parametrize(
    "text",
    [
        "no markers\n",
        "<!-- begin: x -->\nno end\n",
        "no begin\n<!-- end: x -->\n",
        "<!-- begin: x -->\n<!-- end: y -->\n",
        "<!-- begin: unknown -->\n<!-- end: unknown -->\n",
        f"{TEXT}<!-- begin: x -->\n",
        f"<!-- end: x -->\n{TEXT}",
    ],
)
def test_broken_markers_are_an_error(text: str):
    with pytest.raises(document.Broken):
        document.fill(text, {"x": lambda: "new", "y": lambda: "new"})


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_documents_show_the_results_that_are_stored(path):
    # If not: make bench ARGS="--from docs/benchmarks.json --document"
    assert document.written(path, RESULTS) == path.read_text()


def test_every_part_is_in_a_document():
    text = "".join(path.read_text() for path in DOCUMENTS)
    assert set(re.findall("<!-- begin: (\\S+)", text)) == set(document.PARTS)


def test_documents_are_written_all_or_none(tmp_path, monkeypatch, results):
    paths = {
        name: tmp_path / path.name for name, path in zip(("BENCHMARKS", "SCALE"), DOCUMENTS, strict=True)
    }
    for name, path in paths.items():
        path.write_text(getattr(document, name).read_text())
        monkeypatch.setattr(document, name, path)
    monkeypatch.setattr(document, "RESULTS", tmp_path / "results.json")
    before = paths["BENCHMARKS"].read_text()
    results["machine"]["kernel"] = "Linux 0.1"
    intact = paths["SCALE"].read_text()
    paths["SCALE"].write_text("no markers")
    with pytest.raises(document.Broken):
        document.write(results)
    assert paths["BENCHMARKS"].read_text() == before
    assert not document.RESULTS.exists()
    paths["SCALE"].write_text(intact)
    document.write(results)
    assert paths["BENCHMARKS"].read_text() == before.replace(RESULTS["machine"]["kernel"], "Linux 0.1")
    assert json.loads(document.RESULTS.read_text())["machine"]["kernel"] == "Linux 0.1"


def test_numbers_are_stored_no_more_exactly_than_they_are():
    assert json.loads(document.as_json({"a": [0.0123456789, 3, None, "x"]})) == {
        "a": [0.012346, 3, None, "x"]
    }


# --- the command ----------------------------------------------------------------------------


def run_command(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    return command.main()


def test_saved_results_are_shown_without_measuring_and_without_root(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "measure", lambda *_: pytest.fail("measures"))
    code = run_command(monkeypatch, "--from", str(document.RESULTS), "--output", str(tmp_path / "new"))
    assert code == 0
    assert capsys.readouterr().out == f"{tables.report(RESULTS)}\n"
    assert not (tmp_path / "new").exists()


def test_results_are_written_as_markdown_and_json(monkeypatch, tmp_path, results):
    asked = []

    def measure(only, options):
        asked.append((only, options.rounds, options.connections, options.image))
        return results

    monkeypatch.setattr(command, "measure", measure)
    folder = tmp_path / "a" / "b"
    assert run_command(monkeypatch, "--only", "lists", "--rounds", "5", "--output", str(folder)) == 0
    assert asked == [(["lists"], 5, datapath.CONNECTIONS, "istio-iptables")]
    assert (folder / "results.md").read_text() == tables.report(results)
    assert json.loads((folder / "results.json").read_text()) == results


@pytest.mark.parametrize(
    "arguments", [("--rounds", "0"), ("--only", "nothing"), ("--only", "runs", "--document")]
)
def test_what_makes_no_sense_is_refused(monkeypatch, arguments):
    with pytest.raises(SystemExit) as ended:
        run_command(monkeypatch, *arguments)
    assert ended.value.code == 2

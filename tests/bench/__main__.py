"""`make bench`: measure, print the tables, and write them with the figures as JSON.

Everything happens in network namespaces and with a lock file of its own, and nothing stays behind.
Nothing here asserts on time: what is not as wanted is said in the tables, and the exit code is 0.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import cni, datapath, document, image, lists, machine, many, prove, runs, see, tables
from .place import ROOT, Bench, Failed, compile_bytecode, hand_over

#: Rounds of each kind unless told otherwise: what is short and shaky needs more of them.
ROUNDS = {"runs": 25, "lists": 9, "see": 15, "prove": 9, "datapath": 25, "many": 7, "cni": 25}
WARM_UP = 2
OUTPUT = ROOT / "build" / "bench"


def parser() -> argparse.ArgumentParser:
    """Return the reader of the command line."""
    made = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    made.add_argument(
        "--only",
        action="append",
        choices=list(tables.SECTIONS),
        metavar="KIND",
        help=f"measure only this kind, of {', '.join(tables.SECTIONS)} (may be repeated)",
    )
    made.add_argument("--rounds", type=positive, help=f"rounds, instead of {ROUNDS}")
    made.add_argument(
        "--connections",
        type=positive,
        default=datapath.CONNECTIONS,
        metavar="NUMBER",
        help="connections of each variant of the data path, instead of %(default)s",
    )
    made.add_argument("--output", type=Path, default=OUTPUT, help="folder for results.md and results.json")
    made.add_argument(
        "--document",
        action="store_true",
        help="write the generated parts of docs/benchmarks.md and docs/scale.md",
    )
    made.add_argument(
        "--from", dest="saved", type=Path, metavar="FILE", help="measure nothing: take saved results"
    )
    made.add_argument("--image", default="istio-iptables", help="image whose size is told, if it is there")
    return made


def positive(text: str) -> int:
    """Return a number of rounds or connections."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def measure(only: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Measure what is asked for, and return the results. Raises Failed."""
    if os.geteuid() != 0:
        raise Failed("needs root, to make network namespaces")
    compile_bytecode()
    gc.disable()  # not while something is timed
    results: dict[str, Any] = {"machine": machine.take()}
    kinds = {
        "runs": runs,
        "lists": lists,
        "see": see,
        "prove": prove,
        "datapath": datapath,
        "many": many,
        "cni": cni,
    }
    with tempfile.TemporaryDirectory(prefix="istio-iptables-bench-") as folder:
        for name in only:
            bench = Bench(Path(folder), options.rounds or ROUNDS[name], WARM_UP, options.connections)
            bench.say(f"{name}, {bench.rounds} rounds ...")
            results[name] = kinds[name].take(bench)
        if "many" in only:
            results["image"] = image.take(bench, options.image)
    results["checks"] = tables.all_checks(results)
    return results


def main() -> int:
    """Do what the command line says and return the exit code."""
    reader = parser()
    options = reader.parse_args()
    only = options.only or list(tables.SECTIONS)
    if options.document and (options.only and set(only) != set(tables.SECTIONS)):
        reader.error("--document shows one whole run, so it does not go with --only")
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # so that everything is cleaned up
    try:
        results = json.loads(options.saved.read_text()) if options.saved else measure(only, options)
        save(results, options)
    except (Failed, document.Broken) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def save(results: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the results and write them where they belong."""
    report = tables.report(results)
    print(report)
    if not options.saved:
        write(options.output, {"results.md": report, "results.json": document.as_json(results)})
    if options.document:
        document.write(results)


def write(folder: Path, texts: dict[str, str]) -> None:
    """Write files into a folder that need not exist yet."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    hand_over(*missing, *(folder / name for name in texts))
    print(f"bench: written to {folder}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

"""Run harnesses: `make fuzz` does, with atheris (of the extra `measure`), each in a process of its own.

What breaks a harness is written to .fuzz/NAME/, and the last lines say how to run it again. What was found
useful is kept in .fuzz/NAME/corpus and used by the next run.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz import LIMITS, NAMES, harness

FOLDER = Path(__file__).parents[2] / ".fuzz"
#: Harnesses of which the input is JSON.
_OF_JSON = ("cni_input", "nft_json", "config", "pod", "dumps")
_LONGEST_INPUT = 1 << 16
_WORD = re.compile(rb"[A-Za-z0-9_.:/*-]{2,24}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)}; all without")
    parser.add_argument("--seconds", type=int, default=20, help="how long each (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of what is tried; 0, the default: another each time"
    )
    parser.add_argument("--input", type=Path, help="check this file once, without atheris")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in this process
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(NAMES)
    if unknown:
        parser.error(f"no such harness: {', '.join(sorted(unknown))}")
    if chosen.input:
        for name in chosen.names or parser.error("which harness?"):
            harness(name).check(chosen.input.read_bytes())
        return 0
    if chosen.here:
        _search(chosen.names[0], chosen.seconds, chosen.seed)
    if not importlib.util.find_spec("atheris"):
        print("skipped: there is no atheris for this Python and processor (setup.cfg, the extra `measure`)")
        return 0
    broken = [name for name in chosen.names or NAMES if not _run(name, chosen.seconds, chosen.seed)]
    for name in broken:
        print(f"{name}: broken; again: python -m tests.fuzz {name} --input .fuzz/{name}/FILE")
    return 1 if broken else 0


def _run(name: str, seconds: int, seed: int) -> bool:
    """Search in a process of its own, tell how much it tried, and whether all of it held."""
    command = [
        sys.executable,
        "-m",
        "tests.fuzz",
        name,
        "--here",
        f"--seconds={seconds}",
        f"--seed={seed}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    tried = re.findall(r"stat::number_of_executed_units: +(\d+)", done.stderr)
    covered = re.findall(r" cov: (\d+) ", done.stderr)
    print(f"{name}: {(tried or ['?'])[-1]} inputs, {(covered or ['?'])[-1]} edges", flush=True)
    if done.returncode:
        print(done.stdout[-5000:], done.stderr[-5000:], sep="\n")
    return not done.returncode


def _search(name: str, seconds: int, seed: int) -> None:
    """Search until the time is over. Never returns: libFuzzer ends the process."""
    import atheris

    # Nearly all modules are imported late, so the corpus is checked while imports are instrumented.
    with atheris.instrument_imports(include=["istio_iptables"], enable_loader_override=False):
        found = harness(name)
        given = sorted(set(found.corpus()))
        for data in given:
            found.check(data)
    folder = FOLDER / name
    seeds, kept = folder / "seeds", folder / "corpus"
    for each in (seeds, kept):
        each.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(given):
        (seeds / f"{number:03}").write_bytes(data)
    words = {word for data in given for word in _WORD.findall(data)}
    dictionary = folder / "words"
    dictionary.write_text("".join(f'"{word.decode()}"\n' for word in sorted(words)))
    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-timeout={LIMITS.seconds}",
        f"-rss_limit_mb={LIMITS.memory}",
        f"-max_len={_LONGEST_INPUT}",
        f"-dict={dictionary}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([name, *options, str(kept), str(seeds)], found.check, **_mutators(name))
    atheris.Fuzz()


def _mutators(name: str) -> dict[str, object]:
    """Return what is to be given to libFuzzer to change inputs of a harness by."""
    import atheris

    from tests.fuzz.mutation import of_json

    def changed(data: bytes, most: int, seed: int) -> bytes:
        return of_json(data, most, seed, atheris.Mutate)

    return {"custom_mutator": changed} if name in _OF_JSON else {}


if __name__ == "__main__":
    sys.exit(main())

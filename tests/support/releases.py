"""releases: what released versions left in the kernel, as dumps: tests/fixtures/releases/VERSION.

`python -m tests.support.releases VERSION`, as root, writes the dumps of a version with the code that is
here; `make release` does that. The form of the files is that of tests/fixtures/istio, with `# family: native`
before what nft prints.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from .istio_fixtures import IstioRules, read_file
from .scratch import FAMILIES, Scratch, Variant
from .snapshots import LOCATIONS, routing, rules, with_files

FOLDER = Path(__file__).parents[1] / "fixtures" / "releases"

#: What each release writes: every kind of rule, chain, route and address is in one of them. A new one may be
#: added; those that are here stay, so that releases can be compared.
CONFIGURATIONS: Mapping[str, str] = {
    "defaults": "",
    "lists-and-interfaces": (
        "--dual-stack -b 80,8000-8100 -d 15090 -i 10.0.0.0/8,fd00::/8 -x 10.1.0.0/16,fd00:1::/64 -o 123 "
        "-q 443 -c eth1,net+ -k vm0"
    ),
    "tproxy-dns": "--dual-stack -m TPROXY -t 1400 -r 140 --redirect-dns --capture-all-dns --drop-invalid",
    "dns-servers": "--dual-stack --redirect-dns",
    "groups": "-u 1337,1338 -g 1337 --redirect-dns --dns-single-zone",
    "compact": "--compact -d 15090,15021,15020,22,25 -x 10.0.0.0/9,10.128.0.0/9,192.0.2.0/24",
}
#: Owner groups that are captured; of the configuration `groups`.
GROUPS = "1000,1001"
SERVERS = ("10.96.0.10", "fd00:10:96::a")


def released() -> list[str]:
    """Return the versions that there are dumps of."""
    return sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


def dumps() -> list[str]:
    """Return the names of all dumps: VERSION/CONFIGURATION.LOCATION."""
    return sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.txt"))


def read(name: str) -> IstioRules:
    """Return one dump by its name."""
    return read_file(FOLDER / f"{name}.txt")


def load(scratch: Scratch, left: IstioRules, location: str) -> None:
    """Put what a version left into a namespace."""
    for family, script in left.scripts.items():
        if family == "native":
            scratch.nft(script=script)
        else:
            variant: Variant = "nft" if location == "nft" else "legacy"
            scratch.restore(variant, "ipv6" if family == "ipv6" else "ipv4", script)
    for command in left.ip:
        scratch.ip(*command)


def state(scratch: Scratch) -> tuple[object, ...]:
    """Return rules of all backends and routing, without counters and what the kernel chooses."""
    native = re.sub(r"counter packets \d+ bytes \d+", "counter", scratch.nft("-n", "list", "ruleset"))
    # Tables of iptables-nft stay when they are empty, and `rules` has what is in them.
    tables = re.findall(r"^(table inet .*?)\n(.*?)^}", native, re.MULTILINE | re.DOTALL)
    # The order of chains is that in which they were made.
    native_rules = {name: sorted(text.strip("\n").split("\n\n")) for name, text in tables}
    return rules(scratch), routing(scratch), native_rules


# --- writing ----------------------------------------------------------------------------------


def write(version: str, folder: Path = FOLDER) -> None:
    """Write the dumps of a version, and check that each is read and loaded as what was dumped."""
    (folder / version).mkdir(parents=True)
    for name, settings in CONFIGURATIONS.items():
        for location, options in LOCATIONS.items():
            if location == "native" and "--compact" in settings:
                continue  # it is for iptables alone
            path = folder / version / f"{name}.{location}.txt"
            with Scratch(addresses=True) as scratch:
                path.write_text(_dump(scratch, version, name, [*shlex.split(settings), *options]))
                wanted = state(scratch)
            with Scratch(addresses=True) as scratch:
                load(scratch, read_file(path), location)
                assert state(scratch) == wanted, path


def _dump(scratch: Scratch, version: str, name: str, settings: list[str]) -> str:
    """Apply settings, and return what they left."""
    groups = GROUPS if name == "groups" else ""
    head = [f"# release: {version}", f"# settings: {shlex.join(settings)}", "# same: yes"]
    head += [f"# resolv: {' '.join(SERVERS)}"]
    head += [f"# groups: {groups}"] if groups else []
    before = scratch.network()
    prefix = with_files(scratch, {"/etc/resolv.conf": "".join(f"nameserver {s}\n" for s in SERVERS)})
    variables = {"ISTIO_OUTBOUND_OWNER_GROUPS": groups} if groups else {}
    done = scratch.tool(*settings, env=variables, prefix=prefix)
    assert done.returncode == 0, done.stderr
    head += [f"# ip: {command}" for command in _commands_of_ip(before, scratch.network())]
    return "".join(f"{line}\n" for line in [*head, *_rules_of(scratch, settings)])


def _rules_of(scratch: Scratch, settings: list[str]) -> Iterator[str]:
    if "--native-nftables" in settings:
        yield "# family: native"
        yield from scratch.nft("-n", "list", "ruleset").splitlines()
        return
    variant: Variant = "nft" if "nft" in settings else "legacy"
    for family in FAMILIES:
        if any(key[:2] == (variant, family) for key in rules(scratch)):
            yield f"# family: {family}"
            yield from scratch.save(variant, family).splitlines()


def _commands_of_ip(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    """Return arguments of ip(8) that make what was added; each dump of ip has one thing a line."""
    for key, text in after.items():
        kind, option = key.split()
        for line in text.splitlines():
            if line in before[key].splitlines() or "proto kernel" in line:  # that follows from an address
                continue
            if kind == "rules":
                priority, _, selector = line.partition(":")
                yield f"{option} rule add priority {priority} {selector.strip()}"
            elif kind == "routes":
                yield f"{option} route add {line.strip()}"
            else:
                address = line.split()[3]
                yield f"{option} address add {address} dev lo{' nodad' if 'nodad' in line else ''}"


if __name__ == "__main__":
    write(sys.argv[1])

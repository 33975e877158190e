"""golden: the golden files, each a configuration and the script of its rules.

    python -m tests.support.golden            check them
    python -m tests.support.golden --write    write them again

The configurations are in golden_cases.py. A file that disagrees with oracle.py is not written. restore.py
loads the script for that comparison. Where the rules are native or compact, the plain rules for the same
settings are compared with the oracle; interpreter.py is used to test that native and compact rules have the
same verdicts.
"""

from __future__ import annotations

import shlex
import sys

from istio_iptables.api import build, render
from istio_iptables.cli.collect import collect
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.settings.resolve import parse, resolve
from istio_iptables.settings.texts import Given
from tests.support import oracle
from tests.support.golden_cases import DIRECTORY, GOLDEN, Golden
from tests.support.restore import after_loading, by_family, ip_commands, without_comments


def text_of(golden: Golden) -> str:
    """Return the contents of a golden file, after the comparison with the oracle."""
    config, warnings = resolve(parse(given(golden), golden.facts()), golden.facts())
    check(golden, render(build(config.replace(compact=False))))
    rendered = render(build(config), golden.style)
    if golden.style == "restore":
        for family, script in by_family(rendered).items():
            after_loading(script, family)
    return "".join(f"{line}\n" for line in _head(golden, warnings)) + rendered


def given(golden: Golden) -> list[Given]:
    """Return the settings that a configuration gives, those that take precedence last."""
    found, mistakes = collect(read_arguments(shlex.split(golden.arguments)), golden.variables)
    assert not mistakes, mistakes
    return found


def _head(golden: Golden, warnings: tuple[str, ...]) -> list[str]:
    families = [name for name, there in (("IPv4", golden.ipv4), ("IPv6", golden.ipv6)) if there]
    arguments = shlex.join(shlex.split(golden.arguments))
    lines = [f"# {golden.about}", "#", f"#   arguments:   {arguments or 'none'}"]
    lines += [f"#   variable:    {name}={shlex.quote(value)}" for name, value in golden.variables.items()]
    lines.append(f"#   addresses:   {' and '.join(families)}")
    lines.append(f"#   DNS servers: {', '.join(golden.servers) or 'none'}")
    return [*lines, *(f"#   warning:     {warning}" for warning in warnings), ""]


def check(golden: Golden, rendered: str) -> None:
    """Compare what is rendered with the oracle; raise AssertionError if they differ."""
    names = golden.facts()
    settings = {item.setting.name: item.text for item in given(golden)}
    # Settings that change no rule, as far as the oracle is concerned.
    unknown = {"ENVOY_USER", "rule-comments", "compact", "native-nftables"}
    known = {name: text for name, text in settings.items() if name not in unknown}
    if "ENVOY_USER" in settings:
        known.setdefault("proxy-uid", settings["ENVOY_USER"])
    for name, text in known.items():
        if "uid" in name or "gid" in name or "GROUPS" in name:  # the oracle knows no names
            numbers = {**names.groups, **names.users}
            known[name] = ",".join(str(numbers.get(member, member)) for member in text.split(","))
    ipv6 = oracle.ipv6_is_on(known, has_ipv4=golden.ipv4, has_ipv6=golden.ipv6)
    wanted = oracle.expected(known, ipv6=ipv6, dns_servers=golden.servers)
    found = {
        (family, table): [without_comments(line) for line in lines]
        for family, script in by_family(rendered).items()
        for table, lines in after_loading(script, family).items()
    }
    for key in sorted({*wanted, *found}):
        if wanted.get(key) != found.get(key):
            both = "\n".join([*wanted.get(key, ["nothing"]), "but it is", *found.get(key, ["nothing"])])
            raise AssertionError(f"{golden.name}, {key}: by the oracle it should be\n{both}")
    commands = oracle.commands(known, ipv6=ipv6)
    if sorted(commands) != sorted(ip_commands(rendered)):
        raise AssertionError(f"{golden.name}, ip: by the oracle it should be\n{commands}")


def main(arguments: list[str]) -> int:
    """Check the files, or write them; return the exit code."""
    if arguments not in ([], ["--write"]):
        print("usage: python -m tests.support.golden [--write]", file=sys.stderr)
        return 2
    wanted = {golden.path: text_of(golden) for golden in GOLDEN}
    there = {path: path.read_text(encoding="utf-8") for path in sorted(DIRECTORY.glob("*.txt"))}
    wrong = sorted(path for path in {*wanted, *there} if wanted.get(path) != there.get(path))
    if not arguments:
        for path in wrong:
            print(f"{path.name}: out of date (python -m tests.support.golden --write)", file=sys.stderr)
        return 1 if wrong else 0
    DIRECTORY.mkdir(exist_ok=True)
    for path in wrong:
        if path in wanted:
            path.write_text(wanted[path], encoding="utf-8")
        else:
            path.unlink()
        print(f"{'written' if path in wanted else 'removed'}: {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

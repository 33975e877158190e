"""What `render` prints, fed to iptables, gives the state that `apply` gives."""

import re
import shlex
from itertools import product

import pytest

from tests.support.scratch import KERNEL, Scratch

pytestmark = KERNEL

SETTINGS = {
    "default": ("-b", "*"),
    "everything": shlex.split(
        "-b 80,8000-8100 -m TPROXY --dual-stack --redirect-dns --capture-all-dns --drop-invalid -c eth7,w+ "
        "-k v0,v1 -i 10.0.0.0/8,fd00::/8 -x 10.1.0.0/16 -q 9000 -o 25 -u 1337,1338 -g 7"
    ),
    "comments": ("-b", "*", "--rule-comments", "-d", "15090"),
}


def state(space):
    """Return the rules of both families in legacy tables, and the routes and addresses beside them."""
    rules = [space.save("legacy", family) for family in ("ipv4", "ipv6")]
    network = [
        space.ip("rule"),
        space.ip("-6", "rule"),
        space.check("sh", "-c", "ip route show table 133; ip -6 route show table 133; ip -6 addr show lo"),
    ]
    return [re.sub(r"(?m)^#.*$|\[\d+:\d+\]", "", text) for text in (*rules, *network)]


@pytest.mark.parametrize(("name", "style"), list(product(SETTINGS, ("restore", "commands"))))
def test_rendered_rules_are_the_applied_rules(name, style):
    arguments = SETTINGS[name]
    with Scratch(addresses=True) as applied, Scratch(addresses=True) as rendered:
        applied.apply("--force-iptables-binary", "legacy", *arguments)
        if style == "commands":
            script = rendered.apply(*arguments, "render", "--format", "commands", "--explain").stdout
            assert script.count("\n# ") >= 10
            for command in ("iptables", "ip6tables"):
                script = re.sub(rf"(?m)^{command} ", f"{command}-legacy ", script)
            rendered.check("sh", stdin=script)
        else:
            for family, command in (("ipv4", "iptables"), ("ipv6", "ip6tables")):
                script = rendered.apply(*arguments, "render", "--family", family, "--explain").stdout
                assert script == "" or script.count("\n# ") >= 10
                rendered.check(f"{command}-legacy-restore", "--noflush", stdin=script)
                for line in re.findall(r"(?m)^# (ip .*)$", script):
                    rendered.check(*line.split())
        wanted, found = state(applied), state(rendered)
        for part, (left, right) in enumerate(zip(wanted, found, strict=True)):
            assert sorted(left.splitlines()) == sorted(right.splitlines()), part
            assert [x for x in left.splitlines() if x.startswith("-A")] == [
                x for x in right.splitlines() if x.startswith("-A")
            ]

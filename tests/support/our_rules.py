"""our_rules: the rules of istio-iptables as steps that load them, by each of the real tools."""

from __future__ import annotations

from collections.abc import Sequence

from istio_iptables import Facts, Ruleset, build, configure
from istio_iptables.formats import iptables_restore, nft
from istio_iptables.rules.model import FAMILIES
from istio_iptables.rules.nftables.translate import translate

from .pod_settings import Settings
from .testbed import Step, lines

#: Who writes them: iptables of either variant, or nft.
WRITERS = ("legacy", "nft", "native")


def our_rules(values: Settings, writer: str, servers: Sequence[str], *, ipv4: bool = True) -> list[Step]:
    """Return the steps that load the rules that some settings mean."""
    facts = Facts(ipv4=ipv4, ipv6=True, servers=tuple(servers))
    return steps_of(build(configure(values, environment=facts)), writer)


def steps_of(ruleset: Ruleset, writer: str) -> list[Step]:
    """Return the steps that load rules, and the routes and addresses they rely on."""
    if writer == "native":
        steps = [Step("nft", nft.script(translate(ruleset)))]
    else:
        steps = [Step(f"{writer} {family}", iptables_restore.script(ruleset, family)) for family in FAMILIES]
    for program in ("ip -6", "ip"):
        texts = [str(item) for item in ruleset.routing if (item.family == "ipv6") == (program == "ip -6")]
        steps.append(Step(program, lines(text.removeprefix(f"{program} ") for text in texts)))
    return [step for step in steps if step.text]

"""no_effect: settings that other settings leave without effect, one row each.

resolve.py turns the rows into warnings, pod/lint into findings: the condition and the reason are the same.
"""

from __future__ import annotations

from ..startup.record import Record
from .config import Everything
from .declared import BY_NAME, OWNER_GROUPS, OWNER_GROUPS_EXCLUDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


class NoEffect(Record):
    """A setting that has no effect because of another one, `cause`.

    `applies` takes all values by field name, and tells whether it is so. `reason` is the text after "has no
    effect", with `{cause}` in place of the other setting's name. `remedy` is the advice of pod lint; it is
    empty for settings that a pod cannot set without their cause.
    """

    setting: str
    cause: str
    applies: Callable[[Mapping[str, Any]], bool]
    reason: str
    remedy: str = ""

    def problem(self, called: Callable[[str], str]) -> str:
        """Return the text after the setting's own name; `called` returns the name to show for a setting."""
        return f"has no effect{self.reason.format(cause=called(self.cause))}"

    @property
    def warning(self) -> str:
        """The row as a warning, with settings by their flags."""
        return f"{BY_NAME[self.setting].flag} {self.problem(lambda name: BY_NAME[name].flag)}"


#: In the order of the warnings.
NO_EFFECT: tuple[NoEffect, ...] = (
    NoEffect(
        "istio-local-exclude-ports",
        "istio-inbound-ports",
        lambda values: bool(values["inbound_ports_excluded"] and _lists(values["inbound_ports"])),
        ": {cause} lists the ports to capture",
        "leave it out: ports that are not listed are not captured",
    ),
    NoEffect(
        "istio-local-exclude-ports",
        "istio-inbound-ports",
        lambda values: bool(values["inbound_ports_excluded"]) and values["inbound_ports"] == (),
        ": {cause} is empty, so no inbound port is captured",
        "leave it out",
    ),
    NoEffect(
        "kube-virt-interfaces",
        "istio-inbound-interception-mode",
        lambda values: values["interception_mode"] == "TPROXY" and bool(values["rerouted_interfaces"]),
        " on ports that TPROXY captures, which takes packets first",
        "use REDIRECT for this pod",
    ),
    NoEffect(
        "force-iptables-binary",
        "native-nftables",
        lambda values: bool(values["native_nftables"] and values["forced_variant"]),
        " with {cause}",
    ),
    NoEffect(
        "compact",
        "native-nftables",
        lambda values: bool(values["native_nftables"] and values["compact"]),
        " with {cause}: there every list is a set already",
    ),
    NoEffect(
        "prove",
        "dry-run",
        lambda values: bool(values["prove"] and values["dry_run"]),
        " with {cause}, which writes nothing",
        "leave one of both out",
    ),
    NoEffect(
        "prove",
        "skip-rule-apply",
        lambda values: bool(values["prove"] and values["skip_rule_apply"]),
        " with {cause}, which writes nothing",
        "leave one of both out",
    ),
    NoEffect(
        "capture-all-dns",
        "redirect-dns",
        lambda values: bool(values["capture_all_dns"] and not values["redirect_dns"]),
        " without {cause}",
    ),
    NoEffect(
        "dns-single-zone",
        "redirect-dns",
        lambda values: bool(values["dns_single_zone"] and not values["redirect_dns"]),
        " without {cause}",
    ),
    NoEffect(
        OWNER_GROUPS_EXCLUDED,
        OWNER_GROUPS,
        lambda values: (
            bool(values["owner_groups_excluded"]) and not isinstance(values["owner_groups"], Everything)
        ),
        ": {cause} lists the groups to capture",
        "leave it out",
    ),
)


def _lists(value: object) -> bool:
    """Tell whether a list has members, as opposed to being empty or the wildcard."""
    return not isinstance(value, Everything) and value != ()

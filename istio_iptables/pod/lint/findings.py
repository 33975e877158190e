"""findings: what lint reports: its kinds, and a finding."""

from __future__ import annotations

from ...settings.texts import shown
from ...startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: The kinds of findings, and what each is about. `--ignore` accepts these words; docs/pods.md lists them.
KINDS: Mapping[str, str] = {
    "invalid": "a value, or a type of value, that cannot be used",
    "istio": "a value that this tool accepts and Istio's injector rejects",
    "unquoted": "a number or a boolean where Kubernetes requires a string",
    "unknown": "an annotation that does not exist but is similar to one that does",
    "misplaced": "an annotation in a place that is not read: on a workload, or as a label",
    "deprecated": "the old name of an annotation",
    "host-network": "a pod in the node's network namespace",
    "no-sidecar": "annotations of a pod that gets no sidecar, or captures nothing",
    "overridden": "an annotation that the arguments of istio-init contradict",
    "nothing": "inclusion lists that are all empty, so that nothing is captured",
    "no-effect": "a list that another setting makes pointless, or a setting that is ignored",
    "contradiction": "the same thing both included and excluded",
    "duplicate": "the same thing twice in a list",
    "shadowed": "a CIDR within an excluded one",
    "host-bits": "a CIDR with bits set beyond its prefix",
    "everything": "an exclusion of everything",
    "one-family": "IPv6 CIDRs where IPv6 is not captured",
    "dns": "lists with the pod's DNS servers or port 53, rerouted interfaces, and where queries really go",
    "auto-allocate": "addresses that Istio allocates to hosts, which are not captured",
    "interface": "a name that no interface has",
    "proxy-port": "ports that the sidecar listens on itself",
    "container-port": "a container's port that is not captured",
    "not-tcp": "a port that is not TCP, which is never captured",
    "proxy-user": "an application that the rules take for the proxy, or a proxy that they do not recognize",
    "owner-group": "groups that the owner match does not see",
    "tproxy": "a proxy without the rights that TPROXY requires",
    "init-privileges": "an istio-init without the rights to write rules",
    "init-order": "init containers that start between the rules and the proxy",
}


class Finding(Record):
    """A setting that does not do what it says: where it is, what it does, and what to do instead.

    `line` and `column` are those of the manifest's text, from 1; 0 if they are not known.
    """

    kind: str
    pod: str
    where: str
    problem: str
    remedy: str
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """Return the finding as a line."""
        place = f":{self.line}:{self.column}" if self.line else ""
        start = f"{shown(self.file)}{place}: " if self.file else ""
        return f"{start}{self.pod}: {self.where}: {self.problem}: {self.remedy} [{self.kind}]"

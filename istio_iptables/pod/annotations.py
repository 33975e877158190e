"""annotations: the names of the settings in a pod, each once. reading.py, lint and the docs use this table.

The names are from Istio's reference of resource annotations. The setting for each is the one that Istio's CNI
plugin uses.
"""

from __future__ import annotations

from ..rules import istio
from ..settings.config import NO_INTERCEPTION
from ..settings.declared import BY_NAME, DNS_CAPTURE, DUAL_STACK, INVALID_DROP
from ..settings.parsers import one_of
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..settings.declared import Setting


class Annotation(Record):
    """An annotation that is a setting.

    `deprecated` is an older name, used only if the pod does not have the new one. `always` are members that
    the list has in every pod; the annotation STATUS_PORT replaces the first of them. `of_cni` is what
    Istio's CNI plugin takes for the value if the pod has no annotation.
    """

    name: str
    setting: Setting
    deprecated: str = ""
    always: tuple[str, ...] = ()
    of_cni: str = ""

    @property
    def default(self) -> str:
        """The value without the annotation: the default of the setting, plus `always`."""
        return ",".join([*filter(None, [self.setting.default]), *self.always])

    @property
    def short(self) -> str:
        """The name without its prefix, for messages: includeInboundPorts."""
        return self.name.rpartition("/")[2]

    @property
    def names(self) -> tuple[str, ...]:
        """All names; the first takes precedence."""
        return tuple(filter(None, (self.name, self.deprecated)))


#: The prefix of the annotations about traffic.
TRAFFIC = "traffic.sidecar.istio.io/"

#: The sidecar's own ports, which are never captured: health and merged metrics (the agent's status port),
#: health, Envoy's metrics.
SIDECAR_PORTS = tuple(map(str, istio.SIDECAR_PORTS))

MODE_ANNOTATION = "sidecar.istio.io/interceptionMode"
#: The interception mode, which has one more value in a pod: NONE captures nothing.
MODE = BY_NAME["istio-inbound-interception-mode"].replace(
    parse=one_of("REDIRECT", "TPROXY", NO_INTERCEPTION, empty="REDIRECT")
)

ANNOTATIONS: tuple[Annotation, ...] = (
    Annotation(MODE_ANNOTATION, MODE),
    Annotation(f"{TRAFFIC}includeOutboundIPRanges", BY_NAME["istio-service-cidr"]),
    Annotation(f"{TRAFFIC}excludeOutboundIPRanges", BY_NAME["istio-service-exclude-cidr"]),
    Annotation(f"{TRAFFIC}includeInboundPorts", BY_NAME["istio-inbound-ports"]),
    Annotation(f"{TRAFFIC}excludeInboundPorts", BY_NAME["istio-local-exclude-ports"], always=SIDECAR_PORTS),
    Annotation(f"{TRAFFIC}includeOutboundPorts", BY_NAME["istio-outbound-ports"]),
    Annotation(
        f"{TRAFFIC}excludeOutboundPorts",
        BY_NAME["istio-local-outbound-ports-exclude"],
        of_cni=SIDECAR_PORTS[0],
    ),
    Annotation(f"{TRAFFIC}excludeInterfaces", BY_NAME["istio-exclude-interfaces"]),
    Annotation(
        "istio.io/reroute-virtual-interfaces",
        BY_NAME["kube-virt-interfaces"],
        deprecated=f"{TRAFFIC}kubevirtInterfaces",
    ),
)
#: By the name of the setting.
BY_SETTING: Mapping[str, Annotation] = {a.setting.name: a for a in ANNOTATIONS}
#: By every name, including the deprecated ones.
NAMES: Mapping[str, Annotation] = {name: a for a in ANNOTATIONS for name in a.names}

#: Variables of the proxy's container, and the setting that each of them switches on.
VARIABLES: Mapping[str, Setting] = {
    DNS_CAPTURE: BY_NAME["redirect-dns"],
    DUAL_STACK: BY_NAME["dual-stack"],
    INVALID_DROP: BY_NAME["drop-invalid"],
}
#: What Istio's CNI plugin switches on by the same variables in addition.
VARIABLES_OF_CNI: Mapping[str, Setting] = {DNS_CAPTURE: BY_NAME["capture-all-dns"]}

#: The annotation and label that switch injection of the sidecar on or off.
INJECT = "sidecar.istio.io/inject"
#: The annotation in which the injector lists, in JSON, what it has put into the pod.
STATUS = "sidecar.istio.io/status"
#: The annotation of a pod whose traffic ambient mode takes, its value then, and the label that asks for it.
AMBIENT = "ambient.istio.io/redirection"
AMBIENT_ON = "enabled"
DATA_PLANE = "istio.io/dataplane-mode"
AMBIENT_DATA_PLANE = "ambient"
#: The variable of the proxy's container that keeps the agent from starting Envoy.
DISABLE_ENVOY = "DISABLE_ENVOY"
#: The annotation that holds settings of the proxy, in YAML, and the key in it for the proxy's variables.
PROXY_CONFIG = "proxy.istio.io/config"
PROXY_METADATA = "proxyMetadata"
#: The annotation with the port of the agent's health checks and metrics; 0 means that there is none.
STATUS_PORT = "status.sidecar.istio.io/port"
#: The proxy's container, which may be a native sidecar among the init containers.
PROXY = "istio-proxy"
#: The container that sets up the rules.
INIT = "istio-init"
#: The container that only validates, where Istio's CNI plugin has set up the rules.
VALIDATION = "istio-validation"
#: The user and group of the proxy, unless the pod sets others.
PROXY_ID = str(istio.PROXY_ID)

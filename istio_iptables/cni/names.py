"""names: the plugin's names, for all that reads or writes the configuration of a node."""

from __future__ import annotations

#: The `type` of the plugin's entry in a network configuration, and the name of its file.
PLUGIN = "istio-iptables-cni"
#: The capability by which a runtime hands over the annotations of a pod (containerd 1.5, CRI-O 1.29).
ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
#: The versions of the CNI specification that the plugin speaks, the oldest first.
VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
#: The file that has the counts of ADD, unless the configuration names another.
METRICS_FILE = "/run/istio-iptables-cni/metrics.prom"
#: The largest configuration that is read, in bytes.
MAX_CONFIGURATION = 8 << 20

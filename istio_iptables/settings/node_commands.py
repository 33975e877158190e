"""node_commands: the commands of `cni`, which are about a node and its CNI plugin, and their options."""

from __future__ import annotations

from . import parsers
from .declared import option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from .declared import Setting

    Placement: TypeAlias = Literal["chained", "dropin", "own-file"]
    Repair: TypeAlias = Literal["label", "delete", "in-place"]


def _switch(name: str, help: str) -> Setting:
    return option(name, help, parsers.boolean, default="false", metavar="BOOL")


_CONF_DIR = option(
    "conf-dir",
    "Folder of the node's network configurations.",
    parsers.anything,
    default="/etc/cni/net.d",
    metavar="DIR",
)
_BIN_DIR = option(
    "bin-dir", "Folder of the node's CNI plugins.", parsers.anything, default="/opt/cni/bin", metavar="DIR"
)
#: Where a node has its network configuration and its plugins.
NODE_FOLDERS = (_CONF_DIR, _BIN_DIR)
#: The same for doctor, which looks at a node if one of them is given.
FOLDERS_FOR_DOCTOR = tuple(
    folder.replace(default="", help=f"A node with the CNI plugin: {folder.help[0].lower()}{folder.help[1:]}")
    for folder in NODE_FOLDERS
)
#: How the plugin is put into the configuration: cni/node/placement.py says what each means.
PLACEMENTS: tuple[Placement, ...] = ("chained", "dropin", "own-file")
_PLACEMENT = option(
    "mode",
    "chained: in the list that the runtime uses; dropin: in a file beside it (libcni 1.3); own-file: in a "
    "copy of it that comes first.",
    parsers.one_of(*PLACEMENTS),
    default=PLACEMENTS[0],
    metavar="MODE",
)
_PLUGIN_CONFIG = option(
    "plugin-config",
    "File with the plugin's own configuration, a mapping as YAML or JSON: docs/cni.md has its keys.",
    parsers.anything,
    metavar="FILE",
)
#: What repair does with a pod.
REPAIRS: tuple[Repair, ...] = ("label", "delete", "in-place")
_REPAIRING = (
    option(
        "node",
        "repair: only pods of this node; by default that of the variable NODE_NAME.",
        parsers.anything,
        metavar="NAME",
    ),
    option(
        "label",
        "repair: the label that a pod gets.",
        parsers.anything,
        default="cni.istio.io/uninitialized=true",
        metavar="KEY=VALUE",
    ),
    option(
        "kubeconfig",
        "repair: file with the access to the Kubernetes API; by default that of the pod's service account.",
        parsers.anything,
        metavar="FILE",
    ),
)
_LISTEN = option(
    "listen",
    "Serve /metrics, /healthz and /readyz: ADDRESS:PORT, :PORT or unix:PATH.",
    parsers.anything,
    metavar="ADDRESS",
)

#: Their names, what they do, and their options.
NODE_COMMANDS: tuple[tuple[str, str, tuple[Setting, ...]], ...] = (
    (
        "install",
        "Put the CNI plugin on a node: its files, with all that it needs, and its entry in the network "
        "configuration.",
        (
            *NODE_FOLDERS,
            _PLACEMENT,
            _PLUGIN_CONFIG,
            _switch("watch", "Keep it there while other programs change the configuration, until SIGTERM."),
            option(
                "repair",
                "--watch: repair pods too, as `cni repair --watch` does.",
                parsers.one_of(*REPAIRS, "", empty=""),
                metavar="ACTION",
            ),
            *_REPAIRING,
            _LISTEN,
            option(
                "launcher",
                "Program that starts the plugin on a node without Python; by default that of the image.",
                parsers.anything,
                metavar="FILE",
            ),
        ),
    ),
    (
        "uninstall",
        "Take the CNI plugin out of a node's network configuration: the files are as they were.",
        (
            *NODE_FOLDERS,
            _switch(
                "remove-files", "Remove the plugin's files too. Pods that it was called for must be gone."
            ),
        ),
    ),
    (
        "status",
        "Tell whether the CNI plugin is on a node as it should be: exit code 0 if it is, 3 if not.",
        (*NODE_FOLDERS, _PLACEMENT, _PLUGIN_CONFIG, _switch("json", "Print it as JSON.")),
    ),
    (
        "repair",
        "Find pods that started without their rules, and label, delete or repair them.",
        (
            option(
                "action",
                "label: mark them; delete: have them made again; in-place: write their rules.",
                parsers.one_of(*REPAIRS),
                default=REPAIRS[0],
                metavar="ACTION",
            ),
            *_REPAIRING,
            _PLUGIN_CONFIG,
            _switch("watch", "Go on until SIGTERM; without it the pods that are there now are looked at."),
            _LISTEN,
        ),
    ),
)

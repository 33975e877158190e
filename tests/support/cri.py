"""cri: the few calls of the Kubernetes container runtime interface that tests need, over gRPC.

The messages are described here, field by field, after runtime/v1/api.proto of k8s.io/cri-api: the numbers are
the protocol, the names are ours to use.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "runtime.v1"
_TEXT, _NUMBER, _LONG, _YES = "string", "int32", "int64", "bool"

#: Fields by message: number, name, type; a type with * is repeated, one with % is a map from text to it.
_MESSAGES: Mapping[str, tuple[tuple[int, str, str], ...]] = {
    "VersionRequest": ((1, "version", _TEXT),),
    "VersionResponse": ((2, "runtime_name", _TEXT), (3, "runtime_version", _TEXT)),
    "PodSandboxMetadata": (
        (1, "name", _TEXT),
        (2, "uid", _TEXT),
        (3, "namespace", _TEXT),
        (4, "attempt", "uint32"),
    ),
    "PortMapping": ((1, "protocol", _NUMBER), (2, "container_port", _NUMBER), (3, "host_port", _NUMBER)),
    "LinuxPodSandboxConfig": ((1, "cgroup_parent", _TEXT),),
    "PodSandboxConfig": (
        (1, "metadata", "PodSandboxMetadata"),
        (2, "hostname", _TEXT),
        (3, "log_directory", _TEXT),
        (5, "port_mappings", "PortMapping*"),
        (6, "labels", f"{_TEXT}%"),
        (7, "annotations", f"{_TEXT}%"),
        (8, "linux", "LinuxPodSandboxConfig"),
    ),
    "RunPodSandboxRequest": ((1, "config", "PodSandboxConfig"), (2, "runtime_handler", _TEXT)),
    "RunPodSandboxResponse": ((1, "pod_sandbox_id", _TEXT),),
    "StopPodSandboxRequest": ((1, "pod_sandbox_id", _TEXT),),
    "StopPodSandboxResponse": (),
    "RemovePodSandboxRequest": ((1, "pod_sandbox_id", _TEXT),),
    "RemovePodSandboxResponse": (),
    "PodSandboxStatusRequest": ((1, "pod_sandbox_id", _TEXT), (2, "verbose", _YES)),
    "PodSandboxNetworkStatus": ((1, "ip", _TEXT),),
    "PodSandboxStatus": (
        (1, "id", _TEXT),
        (3, "state", _NUMBER),
        (4, "created_at", _LONG),
        (5, "network", "PodSandboxNetworkStatus"),
    ),
    "PodSandboxStatusResponse": ((1, "status", "PodSandboxStatus"), (2, "info", f"{_TEXT}%")),
    "ListPodSandboxRequest": (),
    "PodSandbox": ((1, "id", _TEXT), (2, "metadata", "PodSandboxMetadata"), (3, "state", _NUMBER)),
    "ListPodSandboxResponse": ((1, "items", "PodSandbox*"),),
    "StatusRequest": ((1, "verbose", _YES),),
    "RuntimeCondition": (
        (1, "type", _TEXT),
        (2, "status", _YES),
        (3, "reason", _TEXT),
        (4, "message", _TEXT),
    ),
    "RuntimeStatus": ((1, "conditions", "RuntimeCondition*"),),
    "StatusResponse": ((1, "status", "RuntimeStatus"), (2, "info", f"{_TEXT}%")),
}


def _described() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="cri.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field, kind in fields:
            _describe(message, number, field, kind)
    return file


def _describe(message: descriptor_pb2.DescriptorProto, number: int, name: str, kind: str) -> None:
    kinds = descriptor_pb2.FieldDescriptorProto
    made = message.field.add(name=name, number=number)
    made.label = kinds.LABEL_REPEATED if kind[-1] in "*%" else kinds.LABEL_OPTIONAL
    if kind.endswith("%"):
        entry_name = f"{name.title().replace('_', '')}Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _describe(entry, 1, "key", _TEXT)
        _describe(entry, 2, "value", kind[:-1])
        made.type = kinds.TYPE_MESSAGE
        made.type_name = f".{_PACKAGE}.{message.name}.{entry_name}"
    elif kind.rstrip("*") in _MESSAGES:
        made.type = kinds.TYPE_MESSAGE
        made.type_name = f".{_PACKAGE}.{kind.rstrip('*')}"
    else:
        made.type = kinds.Type.Value(f"TYPE_{kind.rstrip('*').upper()}")


class Service:
    """A runtime's service at a socket. A call that fails raises grpc.RpcError."""

    def __init__(self, socket: Path) -> None:
        pool = descriptor_pool.DescriptorPool()
        pool.Add(_described())
        self._types = message_factory.GetMessageClassesForFiles(["cri.proto"], pool)
        self._channel = grpc.insecure_channel(f"unix:{socket}")

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def call(self, name: str, *, seconds: float = 60, **fields: Any) -> Any:
        """Call a method, with the fields of its request as data, and return the response."""
        response = self._types[f"{_PACKAGE}.{name}Response"]
        made = self._types[f"{_PACKAGE}.{name}Request"](**fields)
        method = self._channel.unary_unary(
            f"/{_PACKAGE}.RuntimeService/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        return method(made, timeout=seconds)

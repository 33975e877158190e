"""kubernetes: objects checked against the schemas of Kubernetes, and capabilities of containers."""

from __future__ import annotations

from typing import Any

import kubernetes_validate

#: The version of Kubernetes whose schemas are used.
KUBERNETES = "1.34"

#: Capabilities that write rules, and that let a process become the proxy's user.
WRITING, BECOMING = ["NET_ADMIN", "NET_RAW"], ["SETUID", "SETGID"]


def validate(thing: Any) -> None:
    """Check an object against the schema of its kind. Raises ValidationError."""
    kubernetes_validate.validate(thing, KUBERNETES, strict=True)

"""kubernetes: objects checked against its schemas, what kustomize makes of a folder, and capabilities."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

#: The version of Kubernetes whose schemas are used.
KUBERNETES = "1.34"

#: Capabilities that write rules, and that let a process become the proxy's user.
WRITING, BECOMING = ["NET_ADMIN", "NET_RAW"], ["SETUID", "SETGID"]


def validate(thing: Any) -> None:
    """Check an object against the schema of its kind. Raises ValidationError."""
    kubernetes_validate.validate(thing, KUBERNETES, strict=True)


def built(folder: Path) -> list[Any]:
    """Return the objects that `kubectl apply -k` would apply. Without kubectl the test is skipped."""
    kubectl = shutil.which("kubectl", path=str(Path(sys.executable).parent)) or shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl for this processor")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))

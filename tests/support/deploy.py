"""deploy/kustomize/istio-init.yaml: what the tool prints for the deployment beside it, as a patch.

`python -m tests.support.deploy --write` writes it anew (`make golden` does), a test compares.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from pathlib import Path

from istio_iptables.cli.handlers import handle
from istio_iptables.settings.go_flags import read_arguments

BASE = Path(__file__).parents[2] / "deploy" / "kustomize"
DEPLOYMENT = BASE / "deployment.yaml"
PATCH = BASE / "istio-init.yaml"

_HEAD = """\
# What `istio-iptables pod init-container deployment.yaml` prints, as a patch; `make golden` writes it.
"""
#: RFC 6902; a strategic merge would not say where in the list.
_OPERATION = """\
- op: add
  path: /spec/template/spec/initContainers/0
  value:
"""


def printed(*arguments: str) -> str:
    """What a command prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert handle(read_arguments(arguments), {}) == 0
    return output.getvalue()


def patch() -> str:
    """The patch as it should be."""
    lines = printed("pod", "init-container", str(DEPLOYMENT)).splitlines()
    comments = [line for line in lines if line.startswith("#")]
    entry = [f"    {line[2:]}" for line in lines if not line.startswith("#")]  # without the list's dash
    return (
        _HEAD
        + "".join(f"{line}\n" for line in comments)
        + _OPERATION
        + "".join(f"{line}\n" for line in entry)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", required=True, help="write the file anew")
    parser.parse_args()
    PATCH.write_text(patch(), encoding="utf-8")

"""What `pod init-container` grants: enough for what the arguments do, and none of it too much."""

from __future__ import annotations

import pytest

from istio_iptables import Facts
from istio_iptables.pod.container import rights
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.settings.resolve import parse
from tests.support import everyone
from tests.support.netns import Namespace, Pod


def outcome(pod: Namespace, user: int, group: int, capabilities: list[str], *arguments: str) -> int:
    """Run the tool as a container does that was granted this, and return its exit code."""
    bounds = ",".join(["-all", *(f"+{name.lower()}" for name in capabilities)])
    limits = ["setpriv", "--no-new-privs", f"--bounding-set={bounds}", "--inh-caps=-all", "--clear-groups"]
    who = [f"--reuid={user}", f"--regid={group}"] if user else []
    command = everyone.command([*limits, *who], *arguments)
    return pod.run(command, check=False, env=everyone.ENVIRONMENT).returncode


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--run-validation"],
        ["--run-validation", "--skip-rule-apply"],
        ["--skip-rule-apply"],
        ["--cleanup-only"],
    ],
    ids=" ".join,
)
def test_enough_and_not_too_much(words: list[str], elsewhere: bool) -> None:
    with Pod() as pod, Namespace() as other:
        place = [f"--network-namespace={pod.name}"] if elsewhere else []
        arguments = ["--cni-mode", "-b", "*", "-i", "*", *words, *place]
        if "--skip-rule-apply" in words or "--cleanup-only" in words:
            assert pod.tool("-b", "*", "-i", "*").code == 0
        granted = rights(parse(read_arguments(arguments).settings, Facts()))
        started_in = other if elsewhere else pod
        for capability in granted.capabilities:
            less = [name for name in granted.capabilities if name != capability]
            status = outcome(started_in, granted.user, granted.group, less, *arguments)
            assert status != 0, f"{capability} is not needed"
        assert outcome(started_in, granted.user, granted.group, list(granted.capabilities), *arguments) == 0


def test_a_dry_run_takes_nothing() -> None:
    granted = rights(parse(read_arguments(["--dry-run"]).settings, Facts()))
    assert granted.capabilities == ()
    with Pod() as pod:
        assert outcome(pod, granted.user, granted.group, [], "--dry-run") == 0

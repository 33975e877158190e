"""What happens where there is no podman or no image: the tests are skipped, loudly."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from tests.image import podman
from tests.support import netns


@functools.cache
def why_not() -> str:
    """Return why no container can be run here, or nothing."""
    if netns.why_not():
        return netns.why_not()
    try:
        for image in (podman.IMAGE, podman.CNI_IMAGE):
            if podman.engine("image", "inspect", image, check=False).code:
                return f"there is no image {image} (make image-test builds it)"
    except FileNotFoundError:
        return f"{podman.ENGINE[0]} is not installed"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip every test of this folder if there can be no containers."""
    owned = [item for item in items if item.path.is_relative_to(podman.HERE)]
    if owned and why_not():
        for item in owned:
            item.add_marker(pytest.mark.skip(reason=f"no containers: {why_not()}"), append=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why nothing was tried."""
    if why_not():
        terminalreporter.write_line(f"image test: skipped: {why_not()}", red=True, bold=True)


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fail if a container, a pod or a network namespace outlives the tests."""
    yield
    netns.clean_up()
    assert why_not() or podman.left_behind() + netns.left_behind() == []

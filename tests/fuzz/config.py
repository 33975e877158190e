"""config: a file of settings. It is refused in a few words, or its settings have rules; see argv."""

from __future__ import annotations

import json
from collections.abc import Iterator

from istio_iptables.cli.collect import from_text, is_settings
from istio_iptables.settings.declared import SETTINGS
from istio_iptables.settings.go_flags import read_arguments
from tests.fuzz import argv
from tests.fuzz.holding import allowed, settled, text_of


def corpus() -> Iterator[bytes]:
    for given in argv.corpus():
        settings = read_arguments(given.decode().split("\n")).settings
        found = {each.setting.name: each.text for each in settings}
        yield json.dumps(found).encode()
        yield "".join(f"{name}: {json.dumps(text)}\n" for name, text in found.items()).encode()
    for setting in SETTINGS:
        yield f"{setting.name}: [{setting.default}]\n".encode()
    yield b"---\nistio-inbound-ports: &ports\n- 80\n- 8000:8100\nistio-local-exclude-ports: *ports"
    yield b"istio-service-cidr: |\n  10.0.0.0/8,\n  10.0.0.0/9\n"


def check(data: bytes) -> None:
    text = text_of(data)
    if text is None:
        return
    is_settings(text)
    found = allowed(lambda: from_text(text, "settings.yaml"))
    if found:
        settled(*found)

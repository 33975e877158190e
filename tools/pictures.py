"""Draw the pictures of the documentation: docs/pictures/*.svg. `make pictures` does it.

They are for a pod with fixed addresses and servers, so that they are the same on every machine.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from istio_iptables import Facts, configure, picture  # noqa: E402  # it need not be installed

FOLDER = ROOT / "docs/pictures"
POD = Facts(ipv4=True, ipv6=False, servers=("10.96.0.10",))
OWN = ("10.0.0.2",)


class Drawing(NamedTuple):
    """The settings of a picture, and the packet whose way it lights up."""

    settings: dict[str, Any]
    trace: str = ""
    native: bool = False


#: What Istio's injector excludes in every pod.
_EXCLUDED: dict[str, Any] = {"inbound_ports_excluded": [15090, 15021, 15020]}
_OUT = "out --uid 1000 --to 203.0.113.10:80 --follow"
_IN = "in --from 198.51.100.1 --to 10.0.0.2:8080 --follow"
_OWN_SERVICE = "out --uid 1337 --to 10.0.0.2:8080 --follow"

DRAWINGS = {
    "redirect": Drawing(_EXCLUDED),
    "redirect-outbound": Drawing(_EXCLUDED, _OUT),
    "redirect-inbound": Drawing(_EXCLUDED, _IN),
    "redirect-own-service": Drawing(_EXCLUDED, _OWN_SERVICE),
    "tproxy-inbound": Drawing({**_EXCLUDED, "interception_mode": "TPROXY"}, _IN),
    "dns": Drawing({**_EXCLUDED, "redirect_dns": True}, "out --udp --uid 1000 --to 10.96.0.10:53 --follow"),
    "native-outbound": Drawing(_EXCLUDED, _OUT, native=True),
}


def drawn(name: str) -> str:
    """Return a picture as SVG."""
    drawing = DRAWINGS[name]
    config = configure(environment=POD, **drawing.settings)
    return picture(config, native=drawing.native, trace=drawing.trace, own=OWN)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.svg"):
        if path.stem not in DRAWINGS:
            path.unlink()
    for name in DRAWINGS:
        (FOLDER / f"{name}.svg").write_text(drawn(name), encoding="utf-8")


if __name__ == "__main__":
    main()

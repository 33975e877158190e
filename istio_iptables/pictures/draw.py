"""draw: a picture in the format that is asked for, with the way of one packet lit up if one is described."""

from __future__ import annotations

from ..rules.model import FAMILIES
from ..trace.follow import Choices
from .asked import asked
from .subject import followed, way_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..rules.model import Cidr
    from ..settings.commands import PictureStyle
    from ..settings.config import Config
    from ..settings.parsers import Names
    from .model import Picture, Way
    from .subject import Subject


def drawn(subject: Subject, style: PictureStyle, trace: str, names: Names, config: Config) -> str:
    """Return a picture as text; `trace` describes a packet (see asked.py), the empty text none.

    `config` are the settings that the subject shows, if it shows settings. Raises SettingsError.
    """
    picture = subject.picture()
    if style == "svg" and not subject.live:
        from .examples import outcomes

        picture = picture.replace(outcomes=outcomes(subject, config))
    way = None
    if trace:
        packet = asked(trace, names)
        servers = tuple(server for family in FAMILIES for server in config.dns_servers_of(family))
        choices = Choices(packet.endpoint, packet.runs_as, servers)
        found = followed(subject, packet.question, further=packet.follow, choices=choices)
        way = way_of(subject, picture, found, packet.text)
    return _written(picture, style, way)


def _written(picture: Picture, style: PictureStyle, way: Way | None) -> str:
    if style == "svg":
        from . import svg

        return svg.text(picture, way)
    if style == "dot":
        from . import dot

        return dot.text(picture, way)
    from . import mermaid

    return mermaid.text(picture, way)


def own_of(trace: str, names: Names) -> tuple[Cidr, ...]:
    """Return the pod's own addresses that are given with a packet. Raises SettingsError."""
    return asked(trace, names).own if trace else ()

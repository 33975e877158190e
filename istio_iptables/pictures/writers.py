"""writers: a picture in the format that is asked for."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..settings.commands import PictureStyle
    from .model import Picture, Way


def written(picture: Picture, style: PictureStyle, way: Way | None = None) -> str:
    """Return a picture as text; with `way` that is lit up."""
    if style == "svg":
        from . import svg

        return svg.text(picture, way)
    if style == "dot":
        from . import dot

        return dot.text(picture, way)
    from . import mermaid

    return mermaid.text(picture, way)

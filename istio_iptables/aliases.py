"""aliases: types in the library's signatures that are not classes, for the annotations of a program.

Their own modules define them for type checkers only, since `typing` is expensive to import. Here they exist
at run time too, made of the same values, as typing.get_type_hints and the like require.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .change.actions import Location as Location
    from .rules.model import Family as Family
    from .rules.model import TableName as TableName
    from .settings.commands import PictureStyle as PictureStyle
    from .settings.commands import Style as Style
else:
    from typing import Literal

    from .change.actions import LOCATIONS
    from .rules.model import FAMILIES, TABLES
    from .settings.commands import PICTURES, STYLES

    Family = Literal[FAMILIES]
    Location = Literal[LOCATIONS]
    PictureStyle = Literal[PICTURES]
    Style = Literal[STYLES]
    TableName = Literal[TABLES]

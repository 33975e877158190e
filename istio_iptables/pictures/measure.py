"""measure: how wide text is, and where its lines break. A writer of SVG has no font to ask.

Widths are those of Helvetica and Arial. Where another font is used, the SVG attribute textLength makes its
text as wide (svg writes it), so that nothing overflows.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: The widths of the characters from the space to `~`, in hundredths of the font's size.
_REGULAR = (
    28, 28, 35, 56, 56, 89, 67, 19, 33, 33, 39, 58, 28, 33, 28, 28, 56, 56, 56, 56, 56, 56, 56, 56, 56, 56,
    28, 28, 58, 58, 58, 56, 102, 67, 67, 72, 72, 67, 61, 78, 72, 28, 50, 67, 56, 83, 72, 78, 67, 78, 72, 67,
    61, 72, 67, 94, 67, 67, 61, 28, 28, 28, 47, 56, 33, 56, 56, 50, 56, 56, 28, 56, 56, 22, 22, 50, 22, 83,
    56, 56, 56, 56, 33, 50, 28, 56, 50, 72, 50, 50, 50, 33, 26, 33, 58,
)  # fmt: skip
_BOLD = (
    28, 33, 47, 56, 56, 89, 72, 24, 33, 33, 39, 58, 28, 33, 28, 28, 56, 56, 56, 56, 56, 56, 56, 56, 56, 56,
    33, 33, 58, 58, 58, 61, 98, 72, 72, 72, 72, 67, 61, 78, 72, 28, 56, 72, 61, 83, 72, 78, 67, 78, 72, 67,
    61, 72, 67, 94, 67, 67, 61, 33, 28, 33, 58, 56, 33, 56, 61, 56, 61, 56, 33, 61, 61, 28, 28, 56, 28, 89,
    61, 61, 61, 61, 39, 56, 33, 61, 56, 78, 56, 56, 50, 39, 28, 39, 58,
)  # fmt: skip
_OTHER = {"…": 100, "→": 100, "“": 42, "”": 42, "·": 33}
#: A character of another script may be as wide as it is high.
_WIDEST = 100


class Font:
    """A size and a face, as text is measured."""

    def __init__(self, size: float, *, bold: bool = False) -> None:
        self.size = size
        self._widths = _BOLD if bold else _REGULAR

    def width(self, text: str) -> float:
        """Return the width of a text in pixels."""
        total = 0
        for character in text:
            at = ord(character) - 32
            if 0 <= at < len(self._widths):
                total += self._widths[at]
            else:
                total += _OTHER.get(character, _WIDEST)
        return total * self.size / 100

    def lines(self, text: str, width: float) -> list[str]:
        """Return a text broken into lines that are no wider than `width`, if its words allow it."""
        return list(self._lines(text, width)) if text else []

    def _lines(self, text: str, width: float) -> Iterator[str]:
        line = ""
        for word in text.split():
            longer = f"{line} {word}" if line else word
            if self.width(longer) <= width:
                line = longer
                continue
            if line:
                yield line
            while self.width(word) > width and len(word) > 1:
                fits = max(
                    1, next(n for n in range(len(word), 0, -1) if n == 1 or self.width(word[:n]) <= width)
                )
                yield word[:fits]
                word = word[fits:]
            line = word
        if line:
            yield line

"""values: numbers in what iptables(8) and people write, with the bounds that the kernel's fields have.

A number that is too large for its field stands in no rule of a kernel. To take it for one that matches
nothing would be a guess, so it is an error as any text is that is no number.
"""

from __future__ import annotations

from .model import FULL_MASK

#: The largest port, conntrack zone; the largest mark, user and group; the largest type and code of ICMP.
MOST_16, MOST_32, MOST_8 = 0xFFFF, FULL_MASK, 0xFF


def number(text: str, most: int, base: int = 10) -> int:
    """Return a number from 0 to `most`; `base` 0 takes what C takes. Raises ValueError for all else.

    >>> number("0x50", MOST_16, 0), number("80", MOST_16)
    (80, 80)
    """
    found = int(text, base)
    if not 0 <= found <= most:
        raise ValueError(f"{text} is not from 0 to {most}")
    return found


def port_range(text: str) -> tuple[int, int]:
    """Return the first and the last of `PORT`, or of `FIRST:LAST`, of which either may lack.

    >>> port_range("80"), port_range("8000:"), port_range(":5")
    ((80, 80), (8000, 65535), (0, 5))
    """
    first, colon, last = text.partition(":")
    low = number(first, MOST_16) if first or not colon else 0
    return low, number(last, MOST_16) if last else MOST_16 if colon else low


def value_and_mask(text: str) -> tuple[int, int]:
    """Return a mark and its mask, all bits where none is written.

    >>> value_and_mask("0x539/0xfff") == (0x539, 0xFFF), value_and_mask("7") == (7, 0xFFFFFFFF)
    (True, True)
    """
    value, slash, mask = text.partition("/")
    return number(value, MOST_32, 0), number(mask, MOST_32, 0) if slash else FULL_MASK

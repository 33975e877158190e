"""visible: texts of others for a reader, without what a terminal would obey."""

from __future__ import annotations

#: Characters that mean something to a terminal, or turn the direction of text, and what is shown instead.
#: Rules, dumps and manifests of other people may have them, and could so change what a reader sees.
_CONTROLS = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\n\t"
}
_STYLE = "\x1b["


def visible(text: str, *, styled: bool = False) -> str:
    """Return text for a reader, with control characters escaped but for newlines and tabs.

    `styled`: sequences for colours and bold, `ESC [ NUMBERS m`, are left too.
    """
    if not styled:
        return text.translate(_CONTROLS)
    first, *rest = text.split(_STYLE)
    shown = [first.translate(_CONTROLS)]
    for part in rest:
        is_style = part.partition("m")[0].replace(";", "").isdecimal()
        shown.append((_STYLE if is_style else _STYLE.translate(_CONTROLS)) + part.translate(_CONTROLS))
    return "".join(shown)

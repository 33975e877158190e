"""picture_handlers: what `render` with a picture's format, and `report`, do."""

from __future__ import annotations

import os
import shlex

from ..errors import KernelError, SettingsError
from ..pictures import subject
from ..pictures.draw import drawn, own_of
from ..settings.commands import PICTURES
from ..settings.declared import BY_NAME
from ..settings.texts import quoted
from ..status.written import command_line
from . import streams
from .log import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..pictures.subject import Subject
    from ..rules.model import Cidr, Family
    from ..settings.config import Config
    from ..status.settings_of import ReadBack
    from .context import Context


def draw(context: Context, families: Sequence[Family]) -> int:
    """render: print a picture, of settings or of what is in the kernel, with the way of one packet lit up."""
    options = context.options
    style = options["format"]
    if style not in PICTURES:
        raise SettingsError(
            f"--{name}: only for pictures: use it with --format svg, mermaid or dot"
            for name in ("trace", "live")
            if options[name]
        )
    if options["explain"]:
        log.warn("--explain has no effect with a picture, which has the reason for each rule anyway")
    own = own_of(options["trace"], context.facts)  # what is wrong there is said before anything else
    shown, config, _ = _subject(context, own)
    shown = shown.replace(families=tuple(f for f in shown.families if f in families))
    streams.write(drawn(shown, style, options["trace"], context.facts, config))
    return 0


def write_report(context: Context) -> int:
    """report: write a page for a browser."""
    options = context.options
    path = options["html"]
    if not path:
        raise SettingsError(["--html: needs a file to write, or `-` for standard output"])
    from ..pictures.report import page

    shown, config, read_back = _subject(context, options["own"])
    text = page(shown, config, _settings(context, read_back), _arguments(context))
    if path == "-":
        streams.write(text)
    else:
        _replace(path, text)
        log.info(f"report written to {path}")
    return 0


def _settings(context: Context, read_back: ReadBack | None) -> list[tuple[str, str, str]] | None:
    """Return the settings that differ from their defaults, with where each is from; None: not known."""
    if read_back:
        names = read_back.settings.items()
        return [(BY_NAME[name].flag, text, "read back from the rules") for name, text in names]
    if context.options["live"] and not context.describes_rules:
        return None
    return [(each.setting.flag, each.text, each.origin) for each in context.parsed.changed]


def _subject(context: Context, own: Sequence[Cidr]) -> tuple[Subject, Config, ReadBack | None]:
    """Return what is to be shown, with its settings; those of live rules are read back if none were given.

    `own` are the pod's own addresses, if they were given.
    """
    if context.options["live"]:
        return _in_the_kernel(context, own)
    native = context.operation.native_nftables
    config = context.config()
    return subject.of_config(config, native=native, own=own, settings=_arguments(context)), config, None


def _in_the_kernel(context: Context, own: Sequence[Cidr]) -> tuple[Subject, Config, ReadBack | None]:
    """Return what is in the kernel: the one place where pictures get it."""
    from ..trace import here
    from ..trace.packet import Question
    from ..trace.world import network_of, proxy_of
    from .live import understood

    given = network_of(tuple(own), Question("out"))
    network = given if own else here.network() or given
    found = understood(context, here.rules(network), context.config)
    unread = tuple(f"not read: {each}" for each in found.rules.unread)
    notes = (*unread, *filter(None, (found.doubt,)))
    for note in notes:
        log.warn(note)
    facts = [("rules", "in the kernel")]
    if found.read_back:
        facts.append(("settings", _shortened(command_line(found.read_back))))
    world = here.world(found.rules, network)
    shown = subject.of_world(world, proxy_of(found.config), facts, notes)
    return shown, found.config, found.read_back


#: As many characters of arguments are shown: a list may have twenty thousand members.
_MOST_ARGUMENTS = 300


def _arguments(context: Context) -> str:
    """Return the settings that differ from their defaults as arguments, shortened if they are long."""
    words = []
    for given in context.parsed.changed:
        setting = given.setting
        name = f"--{setting.name}" if setting.has_flag else setting.variable
        words.append(shlex.quote(f"{name}={given.text}"))
    return _shortened(" ".join(words))


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_ARGUMENTS else f"{text[:_MOST_ARGUMENTS]} …"


def _replace(path: str, text: str) -> None:
    """Write a file so that its name leads to the old one or the whole new one at every moment."""
    import tempfile

    path = os.path.realpath(path)  # a symbolic link stays one
    folder, name = os.path.split(path)
    temporary = ""
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a device or a pipe takes what is written
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            return
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=folder or ".", prefix=f".{name}.", delete=False
        ) as file:
            temporary = file.name
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        why = error.strerror if isinstance(error, OSError) else error
        raise KernelError(f"--html: {quoted(path)} cannot be written: {why}") from error


def _mode(path: str) -> int:
    """Return the mode of the file that is there, or that a new one would have."""
    try:
        return os.stat(path).st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask

"""collect: collect the settings given by pods, files, variables and flags, the weakest first."""

from __future__ import annotations

import errno
import os
import sys

from ..errors import SettingsError
from ..settings.commands import COMMAND_BY_NAME
from ..settings.declared import SOURCE_BY_NAME
from ..settings.parsers import MOST_MEMBERS, BadValue
from ..settings.resolve import from_environment
from ..settings.texts import Given, quoted, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ..pod import Pod
    from ..settings.go_flags import Invocation
    from ..settings.parsers import Names


def collect(invocation: Invocation, environ: Mapping[str, str]) -> tuple[list[Given], list[str]]:
    """Return all settings given, the strongest last, and the mistakes found.

    A file takes precedence over a pod, in whichever order they are given: the file was written for this tool.
    Of several files the last takes precedence.
    """
    from_files: list[Given] = []
    mistakes: list[str] = []
    sources = [*invocation.sources, *_operands(invocation)]
    pods = [source for source in sources if source.setting.name == "pod"]
    for source in sources:
        if source.setting.name == "config":
            try:
                found, wrong = from_file(source.text)
            except SettingsError as error:
                mistakes += error.mistakes
            else:
                from_files += found
                mistakes += wrong
        elif source.setting.name == "pod-name" and not pods and not invocation.operands:
            mistakes.append(f"{source.origin}: there is no manifest to pick a pod from: give --pod FILE")
    given = [*from_files, *from_environment(environ), *invocation.settings]
    of_pod, wrong = _from_pod(pods[-1], pod_name(invocation), given) if pods else ([], [])
    return [*of_pod, *given], [*invocation.mistakes, *wrong, *mistakes]


def _operands(invocation: Invocation) -> list[Given]:
    """Return the operands of the command that are sources of settings."""
    command = COMMAND_BY_NAME.get(invocation.command)
    if command is None or command.operand is None or not command.operand.source:
        return []
    source = SOURCE_BY_NAME[command.operand.source]
    return [Given(source, operand, command.operand.name) for operand in invocation.operands]


def pod_name(invocation: Invocation) -> str:
    """Return the value of --pod-name, or an empty string."""
    return next((s.text for s in reversed(invocation.sources) if s.setting.name == "pod-name"), "")


def answer(invocation: Invocation, names: Names) -> tuple[bool, list[str]]:
    """Return the value of --yes, and the mistakes in it."""
    value, mistakes = False, []
    for source in invocation.sources:
        if source.setting.name == "yes":
            try:
                value = bool(source.setting.parse(source.text, names))
            except BadValue as bad:
                mistakes += [f"{source.origin}: {problem}" for problem in bad.problems]
    return value, mistakes


def _from_pod(source: Given, name: str, others: Sequence[Given]) -> tuple[list[Given], list[str]]:
    """Return the settings of a pod's manifest and the mistakes in it. `others` take precedence over it."""
    from ..pod import read_settings
    from ..pod.manifest import pick

    try:
        pod = pick(pods_of(source.text, source.origin), name, f"{source.origin}: {quoted(source.text)}")
        found = read_settings(pod, others)
    except SettingsError as error:
        return [], list(error.mistakes)
    return list(found.given), [*found.refusals, *found.mistakes]


def pods_of(path: str, origin: str) -> tuple[Pod, ...]:
    """Return the pods of a manifest, a file or `-` for standard input. Raises SettingsError."""
    from ..pod.manifest import pods

    return pods(text_of_file(path, origin), f"{origin}: {quoted(path)}")


def from_file(path: str) -> tuple[list[Given], list[str]]:
    """Return the settings of a YAML or JSON file, a mapping of long flag names to values, and its mistakes.

    Raises SettingsError if the file cannot be read, or is not such a mapping.
    """
    return from_text(text_of_file(path, "--config"), path)


def from_text(text: str, path: str) -> tuple[list[Given], list[str]]:
    """Return the settings in the text of a file, and the mistakes in it; see from_file."""
    from ..settings.mapping import from_mapping

    return from_mapping(_mapping(text, path), shown(path))


def is_settings(text: str) -> bool:
    """Tell whether a text is a mapping of long flag names to values rather than a dump of rules or routes."""
    from ..formats.iptables_dump import is_dump
    from ..settings import yaml_text

    if is_dump(text) or text.count("\n") > _MOST_LINES:
        return False
    try:
        found = yaml_text.read_documents(text)
    except yaml_text.Unreadable:
        return False
    if len(found) != 1 or not isinstance(found[0], dict):
        return False
    # What nft prints is a mapping, too, and `0: from all lookup local` of ip(8) reads like one.
    return "nftables" not in found[0] and not any(str(name).isdigit() for name in found[0])


def _mapping(text: str, path: str) -> dict[str, Any]:
    from ..settings import yaml_text

    if text.count("\n") > _MOST_LINES:
        raise SettingsError([f"--config: {quoted(path)} is too large: at most {_MOST_LINES} lines are read"])
    try:
        found = yaml_text.read_documents(text)
    except yaml_text.Unreadable as error:
        raise SettingsError([f"--config: {quoted(path)} is neither YAML nor JSON: {error}"]) from error
    if len(found) > 1:
        raise SettingsError([f"--config: {quoted(path)} is neither YAML nor JSON: it has several documents"])
    values = found[0] if found else None
    if values in (None, ""):
        return {}
    if not isinstance(values, dict):
        raise SettingsError([f"--config: {quoted(path)} is not a mapping of long flag names to values"])
    return {str(name): value for name, value in values.items()}


#: A list with a member on each line fits. Of more lines the data would fill the memory.
_MOST_LINES = MOST_MEMBERS + 10_000


def text_of_file(path: str, origin: str) -> str:
    """Return the text of a file, or of standard input for `-`. Raises SettingsError."""
    try:
        content = _content(path)
        if len(content) > _LARGEST_FILE:
            most = f"at most {_LARGEST_FILE >> 20} MiB are read"
            raise SettingsError([f"{origin}: {quoted(path)} is too large: {most}"])
        return content.decode("utf-8-sig")
    except OSError as error:
        raise SettingsError([f"{origin}: {quoted(path)} cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise SettingsError([f"{origin}: {quoted(path)} is not UTF-8 text"]) from error
    except ValueError as error:  # a path with a NUL in it
        raise SettingsError([f"{origin}: {quoted(path)} cannot be read: {error}"]) from error


#: In bytes. The longest lists of settings fit; an endless file such as /dev/zero does not.
_LARGEST_FILE = 16 << 20


def _content(path: str) -> bytes:
    """Return a file's content, or that of standard input, up to one byte more than is allowed."""
    if path != "-":
        with open(path, "rb") as file:
            return file.read(_LARGEST_FILE + 1)
    if sys.stdin is None:  # closed by the caller (<&-)
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return sys.stdin.buffer.read(_LARGEST_FILE + 1)

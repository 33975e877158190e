"""protocol: what a runtime asks, and how it is answered: the CNI specification, without any meaning of ours.

A call is variables of the environment and a configuration in JSON on standard input. The answer is JSON on
standard output: a result, nothing, or an error with a code.
"""

from __future__ import annotations

from ..errors import IstioIptablesError
from ..settings.texts import shown
from ..startup import json_text
from ..startup.record import Record
from ..visible import visible
from .names import MAX_CONFIGURATION, VERSIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

# --- errors ---------------------------------------------------------------------------------

#: Codes of the specification.
INCOMPATIBLE_VERSION = 1
NO_CONTAINER = 3
BAD_ENVIRONMENT = 4
FAILED = 5
UNDECODABLE = 6
BAD_CONFIGURATION = 7
TRY_AGAIN = 11
NOT_AVAILABLE = 50
#: Codes of this plugin; the specification leaves those from 100 to plugins.
DIFFERS = 100
UNEXPECTED = 101


class CniError(IstioIptablesError):
    """What a call ends with if it fails: a code for the runtime, a message, and details for people."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        self.code = code
        self.message = message
        self.details = details
        super().__init__(f"{message}: {details}" if details else message)

    def __reduce__(self) -> tuple[type[CniError], tuple[int, str, str]]:
        """Pickle the attributes."""
        return type(self), (self.code, self.message, self.details)


def error_text(error: CniError, version: str) -> str:
    """Return the answer to a call that failed. Runtimes show its texts, which may quote those of others."""
    answer = {"cniVersion": version, "code": error.code, "msg": visible(error.message)}
    details = {"details": visible(error.details)} if error.details else {}
    return json_text.write({**answer, **details}) + "\n"


# --- what is asked --------------------------------------------------------------------------


class Command(Record):
    """A command: the version of the specification that it is from, and the variables that it needs.

    `chained`: it needs the result of the plugins before this one.
    """

    name: str
    since: str
    variables: tuple[str, ...] = ()
    chained: bool = False


CONTAINER, NAMESPACE, INTERFACE, PATH = "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"

ADD = Command("ADD", "0.3.1", (CONTAINER, NAMESPACE, INTERFACE), chained=True)
CHECK = Command("CHECK", "0.4.0", (CONTAINER, NAMESPACE, INTERFACE), chained=True)
DEL = Command("DEL", "0.3.1", (CONTAINER, INTERFACE))
STATUS = Command("STATUS", "1.1.0")
GC = Command("GC", "1.1.0", (PATH,))
VERSION = Command("VERSION", "0.3.1")
COMMANDS: Mapping[str, Command] = {c.name: c for c in (ADD, CHECK, DEL, STATUS, GC, VERSION)}


class Document:
    """The configuration as it came in: values by key, and the exact text of each."""

    def __init__(self, text: str) -> None:
        """Read it. Raises CniError if it is not a JSON object."""
        try:
            self._members = json_text.read_object(text)
        except ValueError as error:
            raise CniError(UNDECODABLE, "the configuration is not a JSON object", str(error)) from error

    def get(self, key: str) -> Any:
        """Return a value, None if there is none."""
        member = self._members.get(key)
        return None if member is None else member.value

    def text(self, key: str) -> str:
        """Return the text of a value, which has to be there."""
        return self._members[key].text

    def values(self) -> dict[str, Any]:
        """Return all values by key."""
        return {key: member.value for key, member in self._members.items()}

    @property
    def version(self) -> str:
        """The version of the specification that the answer has to be in; the newest if none is usable."""
        found = self.get("cniVersion")
        return found if found in VERSIONS else VERSIONS[-1]


class Request(Record):
    """A call: its command, its variables (empty if not set), CNI_ARGS by name, and its configuration."""

    command: Command
    container: str
    namespace: str
    interface: str
    arguments: Mapping[str, str]
    document: Document


#: At the beginning of files that some editors write.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def decode(content: bytes) -> Document:
    """Return the configuration of what was read from standard input. Raises CniError."""
    if len(content) > MAX_CONFIGURATION:
        most = f"at most {MAX_CONFIGURATION >> 20} MiB are read"
        raise CniError(UNDECODABLE, "the configuration is too large", most)
    try:
        return Document(content.removeprefix(_BYTE_ORDER_MARK).decode())
    except UnicodeDecodeError as error:
        raise CniError(UNDECODABLE, "the configuration is not UTF-8 text", str(error)) from error


def command_of(environ: Mapping[str, str]) -> Command:
    """Return the command. Raises CniError if there is none of that name."""
    name = environ.get("CNI_COMMAND", "")
    if not name:
        raise CniError(
            BAD_ENVIRONMENT,
            "the variable CNI_COMMAND is not set",
            "a container runtime calls this program; `istio-iptables cni install` registers it",
        )
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise CniError(BAD_ENVIRONMENT, f"CNI_COMMAND: {name!r} is not one of {known}")
    return COMMANDS[name]


def request(command: Command, environ: Mapping[str, str], document: Document) -> Request:
    """Return a call, checked. Raises CniError for its version, else its variables, else its configuration."""
    _require_version(command, document)
    arguments: dict[str, str] = {}
    mistakes = [*_mistakes_in_variables(command, environ), *_read_arguments(environ, arguments)]
    if mistakes:
        raise CniError(BAD_ENVIRONMENT, "the environment is not that of a CNI call", "\n".join(mistakes))
    mistakes = list(_mistakes_of_protocol(command, document))
    if mistakes:
        raise CniError(BAD_CONFIGURATION, "the network configuration cannot be used", "\n".join(mistakes))
    namespace, interface = environ.get(NAMESPACE, ""), environ.get(INTERFACE, "")
    return Request(command, environ.get(CONTAINER, ""), namespace, interface, arguments, document)


def _require_version(command: Command, document: Document) -> None:
    version = document.get("cniVersion")
    if version not in VERSIONS:
        known = f"this plugin speaks {', '.join(VERSIONS)}"
        what = "is missing" if version is None else f"{version!r} is not supported"
        raise CniError(INCOMPATIBLE_VERSION, f"cniVersion: {what}", known)
    if VERSIONS.index(version) < VERSIONS.index(command.since):
        raise CniError(
            INCOMPATIBLE_VERSION,
            f"cniVersion: {version} has no {command.name}",
            f"it is part of the specification since {command.since}",
        )


def _mistakes_in_variables(command: Command, environ: Mapping[str, str]) -> Iterator[str]:
    for name in command.variables:
        if not environ.get(name):
            yield f"{name} is not set, and {command.name} needs it"
    container, interface = environ.get(CONTAINER, ""), environ.get(INTERFACE, "")
    if container and not _is_name(container):
        yield f"{CONTAINER}: {container!r} is not an ID: use letters, digits, `_`, `.` and `-`"
    if interface and not _is_interface(interface):
        yield f"{INTERFACE}: {interface!r} is not the name of an interface"


def _is_name(text: str) -> bool:
    """Tell whether a text begins with a letter or digit and has nothing but these, `_`, `.` and `-`."""
    plain = text.replace("_", "").replace(".", "").replace("-", "")
    return text.isascii() and text[0].isalnum() and plain.isalnum()


def _is_interface(text: str) -> bool:
    if len(text) > 15 or text in (".", ".."):
        return False
    return not any(character in "/:" or character.isspace() for character in text)


def _read_arguments(environ: Mapping[str, str], arguments: dict[str, str]) -> Iterator[str]:
    """Add the pairs of CNI_ARGS (`A=1;B=2`), and yield what is wrong with them."""
    for pair in environ.get("CNI_ARGS", "").split(";"):
        name, equals, value = pair.partition("=")
        if name and equals:
            arguments[name] = value
        elif pair:
            yield f"CNI_ARGS: {shown(pair)!r} is not NAME=VALUE"


def _mistakes_of_protocol(command: Command, document: Document) -> Iterator[str]:
    if not command.chained:  # a pod has to be able to go whatever became of the configuration
        return
    name = document.get("name")
    if not isinstance(name, str) or not name or not _is_name(name):
        yield "name: the network has no name of letters, digits, `_`, `.` and `-`"
    result = document.get("prevResult")
    if result is not None and not isinstance(result, dict):
        yield "prevResult: is not an object"
    elif result is None:
        yield "prevResult: is missing: this plugin has to come after the one that makes the pod's interface"


# --- how it is answered ---------------------------------------------------------------------


def result_text(document: Document) -> str:
    """Return the result of the plugins before this one, unchanged, in the version that came in."""
    text = document.text("prevResult")
    members = json_text.read_object(text)
    version = members.get("cniVersion")
    if version is not None and version.value == document.version:
        return f"{text}\n"
    rest = (f"{json_text.write(key)}: {m.text}" for key, m in members.items() if key != "cniVersion")
    return "{" + ", ".join([f'"cniVersion": "{document.version}"', *rest]) + "}\n"


def versions_text(document: Document) -> str:
    """Return the answer to VERSION."""
    return json_text.write({"cniVersion": document.version, "supportedVersions": VERSIONS}) + "\n"

"""context: one run of the command: all that was given, checked, as the handlers need it."""

from __future__ import annotations

from ..errors import KernelError
from ..kernel.this_machine import ThisMachine
from ..settings.commands import COMMAND_BY_NAME, DEFAULT_COMMAND
from ..settings.parsers import BadValue
from ..settings.resolve import HOW_TO_RUN, parse, parse_options, resolve, service_links
from .collect import answer, collect
from .log import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..kernel.machine import Machine
    from ..settings.commands import Style
    from ..settings.config import Config
    from ..settings.environment import Environment
    from ..settings.go_flags import Invocation
    from ..settings.resolve import Operation
    from ..settings.texts import Given


#: Fields of settings that are about the run, or, as ENVOY_USER, only a default.
_NOT_ABOUT_RULES = HOW_TO_RUN | {"", "proxy_user"}
#: Sources of settings that are about rules, whatever is in them.
_SOURCES = ("config", "pod")


class Context:
    """One run: the command and its options, the parsed settings, and how to run."""

    def __init__(self, invocation: Invocation, environ: Mapping[str, str]) -> None:
        """Check everything that was given. Raises SettingsError with all mistakes."""
        self._facts = ThisMachine()
        self._warnings = service_links(environ)
        self.invocation = invocation
        self.environ = environ
        self.given, mistakes = collect(invocation, environ)
        log.configure((), as_json=_log_as_json(self.given, self._facts))  # for the mistakes found below
        self.yes, bad_answer = answer(invocation, self._facts)
        known = COMMAND_BY_NAME.get(invocation.command)
        if not (known and known.without_namespace):
            mistakes += _namespace_mistakes(self.given)
        mistakes += bad_answer
        self.options, bad_options = parse_options(invocation.command, invocation.options, self._facts)
        self.parsed = parse(self.given, self._facts, [*mistakes, *bad_options])
        self.command = COMMAND_BY_NAME[invocation.command or DEFAULT_COMMAND]
        self.operation: Operation = self.parsed.operation()

    @property
    def facts(self) -> ThisMachine:
        """The machine that the settings are for; it knows the names of users and groups."""
        return self._facts

    @property
    def describes_rules(self) -> bool:
        """True if settings say which rules there are to be, and not only how to run."""
        given = any(item.setting.field not in _NOT_ABOUT_RULES for item in self.given)
        return given or any(source.setting.name in _SOURCES for source in self.invocation.sources)

    def enter_namespace(self) -> None:
        """Enter the network namespace of the settings. A dry run without the privilege stays where it is."""
        namespace = self.operation.network_namespace
        if not namespace:
            return
        from ..kernel.namespace import enter

        origin = next((g.origin for g in self.parsed.changed if g.setting.field == "network_namespace"), "")
        try:
            enter(namespace, origin)
        except KernelError as error:
            if not self._only_prints():
                raise
            log.warn(f"{error.cause}: addresses are those of the current network namespace")

    def _only_prints(self) -> bool:
        same_as = self.options.get("same-as", ())
        reads = self.options.get("live") or self.options.get("watch") or "live" in same_as
        return not reads and (self.operation.dry_run or self.command.only_prints)

    def config(self, environment: Environment | None = None) -> Config:
        """Resolve the Config, and log the settings and warnings that an operator will look for later.

        `environment` is what the settings are for, if it is not this machine.
        """
        config, warnings = resolve(self.parsed, environment or self._facts)
        self.log_settings((*warnings, *self._missing_interfaces()))
        return config

    def _missing_interfaces(self) -> list[str]:
        """Return warnings about interfaces that do not exist.

        Not for what is only printed: that may be for another machine, whose interfaces are unknown.
        """
        values = self.parsed.values
        if self._only_prints() or not (values["interfaces_excluded"] or values["rerouted_interfaces"]):
            return []
        from ..kernel.interfaces import missing

        return missing(self.parsed)

    def log_settings(self, warnings: Sequence[str] | None = None) -> None:
        """Log the settings that differ from their defaults, where each came from, and warnings.

        `warnings` are those of `resolve`; without them those of the parsed settings are logged.
        """
        for given in self.parsed.changed:
            log.info(f"setting {given.setting.name} = {_shortened(given.text)} ({given.origin})")
        for warning in (*self._warnings, *(self.parsed.warnings if warnings is None else warnings)):
            log.warn(warning)

    @property
    def style(self) -> Style:
        """The style in which the rules that are applied are printed."""
        return "nft" if self.operation.native_nftables else "restore"

    def machine(self, *, writing: bool) -> Machine:
        """Return the kernel as a context manager."""
        from ..kernel.machine import Machine

        return Machine(
            forced_variant=self.operation.forced_variant,
            native_nftables=self.operation.native_nftables,
            cni_mode=self.operation.cni_mode,
            writing=writing,
            on_wait=log.info,
        )


#: The log shows no more characters of a value.
_MOST_OF_A_VALUE = 200


def _shortened(text: str) -> str:
    """Return a value for the log: of a long list only the beginning and its length."""
    if len(text) <= _MOST_OF_A_VALUE:
        return repr(text)
    return f"{text[:_MOST_OF_A_VALUE]!r}... ({text.count(',') + 1} members, {len(text)} characters)"


def _log_as_json(given: list[Given], facts: ThisMachine) -> bool:
    """Tell whether --log_as_json was given, before all settings are parsed: mistakes are JSON lines too."""
    for item in reversed(given):
        if item.setting.field == "log_as_json":
            try:
                return bool(item.setting.parse(item.text, facts))
            except BadValue:
                continue
    return False


def _namespace_mistakes(given: list[Given]) -> list[str]:
    """Return what is wrong with the network namespace that was asked for, without entering it."""
    asked = [item for item in given if item.setting.field == "network_namespace" and item.text]
    if not asked:
        return []
    from ..kernel.namespace import why_not_there

    found = why_not_there(asked[-1].text, asked[-1].origin)
    return [found] if found else []

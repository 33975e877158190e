"""iptables_options: what the arguments of matches and targets mean that this tool never writes.

Here arguments are taken apart into options; iptables_matches and iptables_targets say what they mean. What
they do not know is Unmodelled, or Unknown: an option whose meaning is known counts also in a rule that has
others.
"""

from __future__ import annotations

from ..startup.record import Record
from .condition import ALWAYS, AllOf, Unmodelled
from .iptables_matches import MODULES, Option
from .iptables_targets import actions_of
from .known import ANYWHERE
from .protocols import PROTOCOLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .action import Action
    from .condition import Condition
    from .iptables_matches import Module
    from .known import Scope


def foreign_match(args: Sequence[str], scope: Scope = ANYWHERE) -> Condition:
    """Return what arguments of iptables(8) mean that stand before the target.

    It is an AllOf with a part for each option, or for each match that is not modelled. `scope` is what is
    known besides: addresses and sets, and the table that the rule is in.
    """
    parts = [part for group in groups(args) for part in _meaning(group, scope)]
    return AllOf(tuple(part for part in parts if part != ALWAYS))


def foreign_target(args: Sequence[str]) -> tuple[Action, ...]:
    """Return what a target does, from its arguments, of which the first is -j or -g."""
    return actions_of(args)


class Group(Record):
    """The options of one match; `module` is its name, empty for options that need no match."""

    module: str
    options: tuple[Option, ...]


def _meaning(group: Group, scope: Scope) -> list[Condition]:
    module = MODULES.get(group.module)
    if module is None:
        words = ["-m", group.module, *(option.words for option in group.options)]
        return [Unmodelled(" ".join(words))]
    return module.meaning(group.options, scope)


# --- from arguments to options ------------------------------------------------------------------


def groups(args: Sequence[str]) -> list[Group]:
    """Take arguments apart: the options of each match, in order, those without a match first.

    `!` stands before an option, or, until iptables 1.4.2, after it.
    """
    reader = _Reader(args)
    reader.read()
    return [Group(name, tuple(options)) for name, options in reader.groups if name or options]


#: Options of matches that are not modelled whose value may look like an option.
_TEXTS = frozenset(
    {"--string", "--hex-string", "--comment", "--name", "--hashlimit-name", "--u32", "--bytecode"}
)
_MODULE_OPTIONS = ("-m", "--match")


class _Reader:
    """Reads arguments from the first to the last."""

    def __init__(self, args: Sequence[str]) -> None:
        self._args = args
        self._at = 0
        #: Modules and their options; a module stands there as often as it is loaded.
        self.groups: list[tuple[str, list[Option]]] = [("", [])]

    def read(self) -> None:
        """Read all arguments."""
        negate = False
        while self._at < len(self._args):
            arg = self._next()
            if arg == "!":
                negate = True
            elif arg in _MODULE_OPTIONS and self._at < len(self._args):
                self.groups.append((self._next(), []))
            else:
                self._option(arg, negate)
                negate = False
        if negate:
            self._option("!", False)

    def _next(self) -> str:
        self._at += 1
        return self._args[self._at - 1]

    def _option(self, name: str, negate: bool) -> None:
        module, options = self._owner(name)
        known = MODULES.get(module)
        count = known.options.get(name) if known else None
        if count and self._args[self._at : self._at + 1] == ["!"]:
            negate, self._at = True, self._at + 1
        values = self._guess(name) if count is None else self._take(count)
        options.append(Option(module, name, tuple(values), negate))

    def _owner(self, name: str) -> tuple[str, list[Option]]:
        """Return the match that an option belongs to: the last one that has it."""
        last, base = self.groups[-1], self.groups[0]
        earlier = reversed(self.groups[1:-1]) if last[0] in MODULES else ()
        for module, options in (last, base, *earlier):
            known = MODULES.get(module)
            if known and name in known.options:
                return module, options
        implied = self._implied()  # iptables loads the match of the protocol by itself
        if implied and name in implied[1].options:
            self.groups.append((implied[0], []))
            return self.groups[-1]
        return last

    def _implied(self) -> tuple[str, Module] | None:
        for option in self.groups[0][1]:
            if option.name in ("-p", "--protocol") and option.values:
                name = _MATCH_OF.get(PROTOCOLS.get(option.values[0], -1), option.values[0])
                module = MODULES.get(name)
                return (name, module) if module else None
        return None

    def _take(self, count: int) -> list[str]:
        return [self._next() for _ in range(min(count, len(self._args) - self._at))]

    def _guess(self, name: str) -> list[str]:
        """Return the values of an option that is not known: all that does not begin another option."""
        values = self._take(1) if name in _TEXTS else []
        while self._at < len(self._args) and not _begins_option(self._args[self._at]):
            values.append(self._next())
        return values


#: The matches of protocols that are not called like those.
_MATCH_OF = {1: "icmp", 58: "icmp6", 135: "mh"}


def _begins_option(word: str) -> bool:
    return word == "!" or (word.startswith("-") and not word[1:2].isdigit())

"""record: Record, the base class of the immutable values of rules, settings and plans.

It provides what ``dataclasses.dataclass(frozen=True)`` does, and type checkers treat it in the same way. The
standard module is not used: importing it, and making its classes, is the largest cost that start-up avoids
(startup/__init__.py has the figures).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_: object):  # noqa: D103  # typing.dataclass_transform, without typing
        return lambda cls: cls


@dataclass_transform(frozen_default=True, eq_default=True)
class Record:
    """An immutable value: fields are the class's annotations, defaults its class attributes.

    Two records are equal when they are of the same class and their fields are equal.

    >>> class Port(Record):
    ...     number: int
    ...     protocol: str = "tcp"
    >>> Port(80)
    Port(number=80, protocol='tcp')
    >>> Port(80) == Port(80, "tcp"), Port(80).replace(number=81).number
    (True, 81)
    """

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        own = tuple(name for name in cls.__annotations__ if not name.startswith("_"))
        cls._fields = cls._fields + own
        setattr(cls, "__match_args__", cls._fields)  # noqa: B010  # mypy reserves this name
        setattr(cls, "__init__", Record.__init__)  # noqa: B010  # not the one that the base class may have been given

    def __init__(self, *values: Any, **named: Any) -> None:
        cls = type(self)
        _made[cls] = made = _made.get(cls, 0) + 1
        if made == _MANY:
            setattr(cls, "__init__", _own_init(cls))  # noqa: B010  # see there
        state = self.__dict__
        fitting = len(values) <= len(cls._fields)
        state.update(zip(cls._fields, values, strict=False))
        for name, value in named.items():
            fitting = fitting and name in cls._fields and name not in state
            state[name] = value
        if len(state) < len(cls._fields):
            fitting = fitting and all(name in state or hasattr(cls, name) for name in cls._fields)
        if not fitting:
            _own_init(cls)(self, *values, **named)  # raises, in Python's words

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: use replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def replace(self, **changes: Any) -> Self:
        """Return a copy in which the named fields have other values."""
        state = (
            self.__dict__
        )  # what is not in it has its default; some records keep in it what they have computed
        return type(self)(**{**{name: state[name] for name in self._fields if name in state}, **changes})

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, in the order of their declaration."""
        return {name: getattr(self, name) for name in self._fields}

    def _key(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self._fields])

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.__dict__ == other.__dict__ or self._key() == other._key()

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._key()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in self.as_dict().items())})"


#: The number of records made of each class, and the number at which a class gets its own __init__.
_made: dict[type[Record], int] = {}
_MANY = 500


def _own_init(cls: type[Record]) -> Callable[..., None]:
    """Return an __init__ generated for one class, three times as fast as the generic one.

    Generating it takes as long as making a hundred records, so only classes with many records get one.
    """
    named = {name: getattr(cls, name) for name in cls._fields if hasattr(cls, name)}
    parameters = ", ".join(f"{name}=named[{name!r}]" if name in named else name for name in cls._fields)
    lines = [f"def __init__(self, {parameters}):", " _of_self = self.__dict__"]
    lines += [f" _of_self[{name!r}] = {name}" for name in cls._fields]  # no field begins with `_`
    namespace: dict[str, Any] = {"named": named}
    exec("\n".join(lines), namespace)
    made: Callable[..., None] = namespace["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"  # error messages begin with it
    return made

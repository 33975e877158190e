"""Records: immutable values; also those of classes so common that they get an __init__ of their own."""

from __future__ import annotations

from typing import Any

import pytest

from istio_iptables.startup import record
from istio_iptables.startup.record import Record


class Made(Record):
    number: int
    word: str = "none"


class MadeMore(Made):
    more: int = 0


@pytest.fixture(params=["few", "many"])
def kind(request: pytest.FixtureRequest) -> type[Made]:
    class Kind(Made):
        pass

    if request.param == "many":
        for number in range(record._MANY):
            Kind(number)
        assert Kind.__init__ is not Made.__init__
    return Kind


def test_values_and_defaults(kind: type[Made]):
    assert kind(1).as_dict() == kind(number=1).as_dict() == {"number": 1, "word": "none"}
    assert kind(1, "x").as_dict() == kind(word="x", number=1).as_dict() == {"number": 1, "word": "x"}
    assert kind(1) == kind(1, "none") != kind(2)
    assert hash(kind(1)) == hash(kind(1, "none"))
    assert kind(1).replace(word="y") == kind(1, "y")
    assert repr(kind(1)) == "Kind(number=1, word='none')"


@pytest.mark.parametrize(
    ("values", "named", "complaint"),
    [
        ((), {}, "missing 1 required positional argument: 'number'"),
        ((1, "x", 2), {}, "takes from 2 to 3 positional arguments but 4 were given"),
        ((1,), {"number": 1}, "got multiple values for argument 'number'"),
        ((1,), {"wrong": 1}, "got an unexpected keyword argument 'wrong'"),
    ],
    ids=["too few", "too many", "twice", "unknown"],
)
def test_wrong_values(kind: type[Made], values: tuple[Any, ...], named: dict[str, Any], complaint: str):
    """The words are Python's, and the same however many records there are."""
    with pytest.raises(TypeError) as caught:
        kind(*values, **named)
    assert str(caught.value) == f"{kind.__qualname__}.__init__() {complaint}"


def test_immutable(kind: type[Made]):
    with pytest.raises(AttributeError):
        kind(1).number = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del kind(1).number


def test_a_class_does_not_take_over_the_init_of_the_one_that_it_extends():
    for number in range(record._MANY + 1):
        Made(number)
    assert MadeMore(1, "x", 2).as_dict() == {"number": 1, "word": "x", "more": 2}


class WithState(Record):
    """A record with fields whose names a generated __init__ might use itself."""

    state: str
    named: str = "none"


def test_no_field_is_taken_for_a_variable_of_the_generated_init():
    for number in range(record._MANY + 1):
        assert WithState(str(number)).as_dict() == {"state": str(number), "named": "none"}

"""profile: which of Hypothesis's profiles is used, for tests that have more to do in `make soak` and `make fuzz`."""

from hypothesis import settings

SOAK: bool = settings().max_examples >= 1000

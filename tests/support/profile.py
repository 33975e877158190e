"""profile: which profile of Hypothesis is used, for tests that do more in `make soak` and `make fuzz`."""

from hypothesis import settings

SOAK: bool = settings().max_examples >= 1000

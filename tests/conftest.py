"""Hypothesis profiles, chosen by the variable HYPOTHESIS_PROFILE: `default`, and `fuzz` with more examples.

A test that wants fewer or more examples than the rest says so as a part of `settings().max_examples`,
so that the profile scales it too.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_EXAMPLES = 100

for _name, _factor in (("default", 1), ("fuzz", 10)):
    settings.register_profile(
        _name,
        max_examples=_EXAMPLES * _factor,
        deadline=None,  # a busy machine is no mistake
        suppress_health_check=[HealthCheck.too_slow],
        print_blob=True,
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "default")

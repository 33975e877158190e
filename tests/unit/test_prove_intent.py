"""Rules do what the intent says, for every packet, in every form; and rules that do not are found."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from istio_iptables.prove.ways import judged
from istio_iptables.settings.config import Config
from istio_iptables.trace.world import of_settings
from tests.support.judging import NETWORKS, configs, wrong

#: Of one configuration in all forms: `make fuzz` has five hundred.
_SOME = settings(max_examples=max(1, settings().max_examples // 2))
FORMS = {"plain": (False, False), "compact": (True, False), "native": (False, True)}


@pytest.mark.slow
@_SOME
@given(config=configs(), network=st.sampled_from(sorted(NETWORKS)), form=st.sampled_from(sorted(FORMS)))
def test_rules_of_any_settings_do_what_they_promise(config: Config, network: str, form: str) -> None:
    compact, native = FORMS[form]
    world = of_settings(config.replace(compact=compact), NETWORKS[network](config), native=native)
    assert not wrong(judged(config, world))

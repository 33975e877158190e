"""The strategies and the oracle know every setting: a new one cannot be forgotten there."""

from istio_iptables.settings.config import Config
from istio_iptables.settings.declared import SETTINGS
from tests.support import oracle_settings, strategies

#: Settings that change no verdict, which the oracle does not know.
SAME_VERDICTS = {"rule-comments", "compact"}


def test_every_setting_that_becomes_a_part_of_config_is_generated():
    names = {setting.name for setting in SETTINGS if setting.field in Config._fields}
    assert names - SAME_VERDICTS - set(strategies.values()) == set()


def test_the_oracle_knows_every_setting_that_is_generated():
    by_default_those_of_the_users = {"proxy-gid"}
    known = {*oracle_settings.DEFAULTS, *oracle_settings.NOT_ABOUT_RULES, *by_default_those_of_the_users}
    assert set(strategies.values()) - known == set()

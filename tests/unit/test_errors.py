"""Errors survive the way to another process: a namespace is best entered in one of its own."""

import pickle

import pytest

from istio_iptables.errors import Differs, IstioIptablesError, KernelError, SettingsError


@pytest.mark.parametrize(
    "error",
    [SettingsError(["a: wrong", "b: wrong"]), KernelError("no", "do this"), KernelError("no"), Differs("x")],
)
def test_an_error_is_the_same_in_another_process(error: IstioIptablesError):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)

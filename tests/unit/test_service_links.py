"""Variables that Kubernetes sets for a Service named like a setting are no settings."""

import pytest

from istio_iptables.settings.resolve import from_environment, service_links


@pytest.mark.parametrize("name", ["ENVOY_PORT", "INBOUND_CAPTURE_PORT", "IPTABLES_PROBE_PORT"])
def test_a_service_link_is_left_out_with_a_warning(name):
    environ = {name: "tcp://10.0.0.1:80", "PROXY_UID": "7"}
    assert [given.setting.name for given in from_environment(environ)] == ["proxy-uid"]
    (warning,) = service_links(environ)
    assert name in warning
    assert "tcp://10.0.0.1:80" in warning


@pytest.mark.parametrize("text", ["15001", "tcp:/10.0.0.1", "x"])
def test_anything_else_is_a_setting(text):
    assert [given.text for given in from_environment({"ENVOY_PORT": text})] == [text]
    assert service_links({"ENVOY_PORT": text}) == []


def test_only_ports_are_service_links():
    assert len(from_environment({"PROXY_UID": "tcp://10.0.0.1:80"})) == 1

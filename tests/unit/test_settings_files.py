"""Settings from files: --config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from istio_iptables.rules.model import Cidr, PortRange
from tests.support.cases import all_cases
from tests.support.configuring import configured, mistakes_of, parsed

YAML = """\
# settings of the mesh
envoy-port: 15002
istio-inbound-ports: [80, "443", 8000:8100]
istio-local-exclude-ports: 22:23
istio-service-cidr:
  - 10.0.0.0/8
  - fd00::/8
istio-service-exclude-cidr: 10.96.0.0/12,10.1.2.3
istio-outbound-ports: 9000-9100
istio-inbound-tproxy-mark: 0x1F
proxy-uid: 010
redirect-dns: true
dual-stack: "false"
kube-virt-interfaces: []
log_output_level: default:debug
probe-timeout: 1m
ISTIO_OUTBOUND_OWNER_GROUPS: [payments, 12]
"""

JSON = """
{"envoy-port": 15002, "istio-inbound-ports": [80, "443", "8000:8100"], "istio-local-exclude-ports": "22:23",
 "istio-service-cidr": ["10.0.0.0/8", "fd00::/8"], "istio-service-exclude-cidr": "10.96.0.0/12,10.1.2.3",
 "istio-outbound-ports": "9000-9100", "istio-inbound-tproxy-mark": "0x1F", "proxy-uid": "010",
 "redirect-dns": true, "dual-stack": "false", "kube-virt-interfaces": [], "log_output_level": "default:debug",
 "probe-timeout": "1m", "ISTIO_OUTBOUND_OWNER_GROUPS": ["payments", 12]}
"""


@pytest.mark.parametrize("text", [YAML, JSON], ids=["yaml", "json"])
def test_config_file(text: str, tmp_path: Path):
    file = tmp_path / "settings"
    file.write_text(text)
    found = parsed("--config", str(file)).values
    expected = {
        "outbound_port": 15002,
        "inbound_ports": (PortRange(80, 80), PortRange(443, 443), PortRange(8000, 8100)),
        "inbound_ports_excluded": (PortRange(22, 23),),
        "outbound_cidrs_excluded": (Cidr(4, 0x0A600000, 12), Cidr(4, 0x0A010203, 32)),
        "outbound_ports": (PortRange(9000, 9100),),
        "tproxy_mark": 31,
        "proxy_uids": (10,),
        "redirect_dns": True,
        "dual_stack": False,
        "rerouted_interfaces": (),
        "log_levels": (("default", "debug"),),
        "probe_timeout": 60.0,
        "owner_groups": (2000, 12),
    }
    assert {field: found[field] for field in expected} == expected
    assert [str(network) for network in found["outbound_cidrs"]] == ["10.0.0.0/8", "fd00::/8"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}", " {}\n"])
def test_an_empty_config_file_gives_nothing(text: str, tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    assert parsed("--config", str(file)) == parsed()


@pytest.mark.parametrize("value", ["true", "True", "TRUE", "t", "1", '"true"'])
def test_booleans_in_yaml(value: str, tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text(f"drop-invalid: {value}\n")
    assert parsed("--config", str(file)).values["drop_invalid"] is True


@pytest.mark.parametrize("value", ["yes", "on", '"yes"', "[]", "2"])
def test_what_only_yaml_takes_for_a_boolean_fails(value: str, tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text(f"drop-invalid: {value}\n")
    assert "is not a boolean" in mistakes_of("--config", str(file))[0]


@all_cases(
    ("text", "mistakes"),
    [
        ("envoy-prot: 1", ["{}: envoy-prot: unknown setting (did you mean envoy-port?)"]),
        ("zzzzzzzzzz: 1", ["{}: zzzzzzzzzz: unknown setting"]),
        ("ENVOY_PORT: 1", ["{}: ENVOY_PORT: unknown setting"]),
        ("config: other.yaml", ["{}: config: unknown setting"]),
        ("- envoy-port", ["--config: '{}' is not a mapping of long flag names to values"]),
        ("just words", ["--config: '{}' is not a mapping of long flag names to values"]),
        ('["envoy-port"]', ["--config: '{}' is not a mapping of long flag names to values"]),
        (
            "envoy-port: {a: 1}",
            ["{}: envoy-port: a value must be a string, a number, true, false or a list of these"],
        ),
        ('{"envoy-port": {"a": 1}}', ["{}: envoy-port: a value must be"]),
        ('{"proxy-uid": NaN}', ["{}: proxy-uid: a value must be"]),
        ("proxy-uid: [[1]]", ["{}: proxy-uid: a list cannot contain lists or mappings"]),
        ("proxy-uid: &a [*a]", ["--config: '{}' is neither YAML nor JSON: "]),
        ("a: [", ["--config: '{}' is neither YAML nor JSON: "]),
        ('{"envoy-port": 1', ["--config: '{}' is neither YAML nor JSON: "]),
        ("a: 1\n---\nb: 2\n", ["--config: '{}' is neither YAML nor JSON: "]),
        ("? [a]\n: 1\n", ["--config: '{}' is neither YAML nor JSON: "]),
        ("a: !!python/object/apply:os.system ['true']", ["{}: a: unknown setting"]),
        ("a\x00b: 1", ["--config: '{}' is neither YAML nor JSON: "]),
        ("foo: 1\nbar: 2", ["{}: foo: unknown", "{}: bar: unknown"]),
    ],
)
def test_bad_config_files(text: str, mistakes: list[str], tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    found = mistakes_of("--config", str(file))
    assert len(found) == len(mistakes)
    for mistake, start in zip(found, mistakes, strict=True):
        assert mistake.startswith(start.format(file))
        assert "\n" not in mistake


def test_config_files_that_cannot_be_read(tmp_path: Path):
    latin = tmp_path / "latin"
    latin.write_bytes(b"\xff\xfe\xff")
    assert mistakes_of("--config", str(latin)) == [f"--config: {str(latin)!r} is not UTF-8 text"]
    assert mistakes_of("--config", str(tmp_path))[0].startswith(
        f"--config: {str(tmp_path)!r} cannot be read: "
    )
    missing = str(tmp_path / "missing")
    assert mistakes_of(f"--config={missing}")[0].startswith(f"--config: {missing!r} cannot be read: ")
    assert mistakes_of("--config=")[0].startswith("--config: '' cannot be read: ")


def test_wrong_names_and_wrong_values_of_a_file_are_reported_in_one_go(tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text("envoy-prot: 1\nproxy-uid: 1\nenvoy-port: 0\n")
    assert len(mistakes_of("--config", str(file))) == 2


def test_a_mistake_about_a_key_is_one_line(tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text('"a\\nb": 1\n')
    assert "\n" not in mistakes_of("--config", str(file))[0]


@pytest.mark.slow
@pytest.mark.parametrize("text", ['{{"a": {}}}', "a: {}"], ids=["json", "yaml"])
def test_a_deeply_nested_config_file_is_a_mistake(text: str, tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text(text.format("[" * 20_000 + "]" * 20_000))
    assert len(mistakes_of("--config", str(file))) == 1


@pytest.mark.parametrize("kind", ["yaml", "json"])
def test_twenty_thousand_networks_from_a_file(kind: str, tmp_path: Path):
    networks = [f"10.{i >> 8 & 255}.{i & 255}.0/24" for i in range(20_000)]
    texts = {
        "yaml": "istio-service-exclude-cidr:\n" + "".join(f"  - {network}\n" for network in networks),
        "json": json.dumps({"istio-service-exclude-cidr": networks}),
    }
    file = tmp_path / "settings"
    file.write_text(texts[kind])
    found = configured("--config", str(file)).outbound_cidrs_excluded
    assert [str(network) for network in found] == networks

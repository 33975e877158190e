"""prove --same-as: whether two rule sets do the same with every packet, and the fewest packets if not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from istio_iptables import Facts, configure
from istio_iptables.prove.same import differing
from istio_iptables.prove.space import every_kind
from istio_iptables.prove.subject import assumed
from istio_iptables.rules.model import Cidr
from istio_iptables.trace.world import of_settings, proxy_of
from tests.support.proving import OWN, Ran, command, dumped, verdict_of

EXCLUDED = "10.8.0.0/16,10.9.0.0/16"


@pytest.fixture
def settings(tmp_path: Path) -> str:
    path = tmp_path / "settings.yaml"
    path.write_text(f"istio-service-exclude-cidr: {EXCLUDED}\ndual-stack: true\n")
    return str(path)


def pairs(found: dict[str, object]) -> set[tuple[str, ...]]:
    """The pairs of verdicts that packets show."""
    return {
        tuple(f"{verdict['code']} {verdict['to']}".strip() for verdict in each["verdicts"])
        for each in found["packets"]  # type: ignore[attr-defined]
    }


@pytest.mark.parametrize("options", [[], ["--compact"], ["--native-nftables"], ["-x", "10.8.0.0/15"]])
def test_every_form_of_the_same_settings_is_the_same(options: list[str], settings: str):
    ran = command("-x", EXCLUDED, "--dual-stack", *options, "prove", "--same-as", settings, OWN)
    assert (ran.status, ran.output.splitlines()[-1]) == (0, "The rules are the same for every packet.")


def test_one_packet_shows_each_pair_of_verdicts_and_can_be_pasted(settings: str):
    ran = command("-x", "10.8.0.0/16", "--dual-stack", "prove", "--same-as", settings, OWN, "--json")
    assert ran.status == 3
    found = ran.document
    assert found["same"] is False
    assert pairs(found) == {("redirected 15001", "direct"), ("translated 127.0.0.1:15001", "direct")}
    assert len(found["packets"]) == 2
    for each in found["packets"]:
        assert each["packet"]["destination"].startswith("10.9.")
        verdicts = [f"{verdict['code']} {verdict['to']}".strip() for verdict in each["verdicts"]]
        assert [verdict_of(line) for line in each["traces"]] == verdicts


def test_a_dump_is_compared_with_settings(tmp_path: Path):
    path = tmp_path / "rules.txt"
    path.write_text(dumped(outbound_cidrs_excluded=EXCLUDED))
    same = ("prove", "--same-as", str(path), "--own", "10.0.0.2")
    assert command("-x", EXCLUDED, *same).status == 0
    ran = command("-x", "10.8.0.0/16", *same, "--json")
    assert ran.status == 3
    assert ("redirected 15001", "direct") in pairs(ran.document)
    for each in ran.document["packets"]:
        verdicts = [f"{verdict['code']} {verdict['to']}".strip() for verdict in each["verdicts"]]
        assert [verdict_of(line) for line in each["traces"]] == verdicts


def test_addresses_that_a_dump_tells_are_those_of_both(tmp_path: Path):
    addresses = tmp_path / "addresses.txt"
    addresses.write_text(
        "1: lo    inet 127.0.0.1/8 scope host lo\n"
        "2: net7    inet 10.7.7.7/24 scope global net7\n"
        "default via 10.7.7.1 dev net7\n"
        "10.7.7.0/24 dev net7 proto kernel scope link src 10.7.7.7\n"
    )
    rules = tmp_path / "rules.txt"
    rules.write_text(dumped(outbound_cidrs_excluded=EXCLUDED))
    ran = command("prove", "--same-as", str(rules), "--same-as", str(addresses), "--json")
    assert ran.status == 3, ran.errors
    for each in ran.document["packets"]:
        assert each["packet"]["source"] == "10.7.7.7"
        verdicts = [f"{verdict['code']} {verdict['to']}".strip() for verdict in each["verdicts"]]
        for line, verdict in zip(each["traces"], verdicts, strict=True):
            assert line is None or verdict_of(line) == verdict
    assert "--own 10.7.7.7" in ran.document["packets"][0]["traces"][0]


def test_an_order_that_is_not_known_is_the_same_in_both(tmp_path: Path):
    """Two nat chains of one priority: which comes first decides, and does so for both rule sets."""
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    for path in (one, other):
        path.write_text(json.dumps({"nftables": [*redirecting("a", 81), *redirecting("b", 82)]}))
    same = command("prove", "--file", str(one), "--same-as", str(other))
    assert same.status == 0, same.output
    other.write_text(json.dumps({"nftables": [*redirecting("a", 81), *redirecting("b", 83)]}))
    ran = command("prove", "--file", str(one), "--same-as", str(other), "--json")
    assert ran.status == 3
    assert all(each["depends_on"] for each in ran.document["packets"])


def redirecting(table: str, port: int) -> list[dict[str, object]]:
    """A table of nftables that redirects HTTP, as `nft -j` prints it."""
    of = {"family": "ip", "table": table}
    hook = {"type": "nat", "hook": "output", "prio": -100, "policy": "accept"}
    http = {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 80}
    return [
        {"table": {"family": "ip", "name": table, "handle": 1}},
        {"chain": {**of, "name": "out", "handle": 1, **hook}},
        {
            "rule": {
                **of,
                "chain": "out",
                "handle": 2,
                "expr": [{"match": http}, {"redirect": {"port": port}}],
            }
        },
    ]


def test_a_dump_of_tproxy_has_the_routes_that_go_with_it(tmp_path: Path):
    path = tmp_path / "rules.txt"
    path.write_text(dumped(interception_mode="TPROXY"))
    ran = command("-m", "TPROXY", "prove", "--same-as", str(path), "--own", "10.0.0.2")
    assert ran.status == 0, ran.output
    assert command("-m", "TPROXY", "prove", "--file", str(path), "--own", "10.0.0.2").status == 0
    packet = ["in", "--to", ":8080", "--expect", "tproxied 15006"]
    assert command("-m", "TPROXY", "trace", *packet, "--file", str(path), "--own", "10.0.0.2").status == 0


def test_a_difference_that_hangs_on_what_is_not_modelled_is_not_certain(tmp_path: Path):
    path = tmp_path / "rules.txt"
    rule = "-A OUTPUT -p tcp -m string --string x --algo bm -j ACCEPT\n"
    path.write_text(dumped().replace("-A OUTPUT -j", f"{rule}-A OUTPUT -j"))
    ran = command("prove", "--same-as", str(path), "--own", "10.0.0.2", "--json")
    assert ran.status == 3
    assert all(any("--string x" in about for about in each["depends_on"]) for each in ran.document["packets"])
    text = command("prove", "--same-as", str(path), "--own", "10.0.0.2").output
    assert "depends on what is not modelled" in text.splitlines()[-1]
    other = tmp_path / "other.txt"
    other.write_text(path.read_text())
    assert command("prove", "--file", str(path), "--same-as", str(other)).status == 0


def test_the_file_of_settings_stands_alone_and_flags_do_not_reach_it(tmp_path: Path):
    path = tmp_path / "settings.json"
    path.write_text("{}")
    ran = command("-p", "15101", "prove", "--same-as", str(path), OWN, "--json")
    assert ("redirected 15101", "redirected 15001") in pairs(ran.document)


def test_a_text_that_can_be_read_once_is_read_once(settings: str, monkeypatch: pytest.MonkeyPatch):
    ran = command("-x", "10.8.0.0/16", "--dual-stack", "prove", "--same-as", settings, OWN)
    with open(settings, encoding="utf-8") as standard_input:
        monkeypatch.setattr("sys.stdin", standard_input)
        piped = command("-x", "10.8.0.0/16", "--dual-stack", "prove", "--same-as", "-", OWN)
    assert (piped.status, ran.status) == (3, 3)
    assert (
        piped.output.replace("--config - ", f"--config {settings} ").splitlines()[3:]
        == (ran.output.splitlines()[3:])
    )


def test_a_socket_that_is_bound_to_an_interface_is_a_packet_of_its_own():
    own = (Cidr(4, 0x0A000002, 32),)
    facts = Facts(True)
    plain, excluded = configure(environment=facts), configure(interfaces_excluded="eth1", environment=facts)
    network = assumed(own, ["eth1"])
    one, other = (of_settings(config, network, native=False) for config in (plain, excluded))
    kinds = [kind for kind in every_kind((one, other)) if kind.fixed.bound == "eth1"]
    found = differing(one, other, kinds, proxy_of(plain))
    assert len(kinds) == 10
    assert {(str(each.one), str(each.other)) for each in found} == {("translated 127.0.0.1:15001", "direct")}
    assert {each.packet.bound for each in found} == {"eth1"}


DNAT = "-A OUTPUT -d 198.51.100.7/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination {}\n"


@pytest.mark.parametrize(("one", "other"), [("10.1.1.1", "10.1.1.1:80"), (":8080", "198.51.100.7:8080")])
def test_a_dnat_may_keep_what_another_one_says(one: str, other: str, tmp_path: Path):
    assert _dnat(tmp_path, one, other).status == 0


def test_a_dnat_without_a_port_has_that_of_the_packet(tmp_path: Path):
    found = _dnat(tmp_path, "10.1.1.1", "10.1.1.1:8080").document
    assert pairs(found) == {("translated 10.1.1.1:80", "translated 10.1.1.1:8080")}
    for each in found["packets"]:
        verdicts = [f"{verdict['code']} {verdict['to']}".strip() for verdict in each["verdicts"]]
        assert [verdict_of(line) for line in each["traces"]] == verdicts


def _dnat(tmp_path: Path, one: str, other: str) -> Ran:
    """Compare our rules behind one DNAT with the same behind another."""
    files = []
    for name, to in (("one", one), ("other", other)):
        path = tmp_path / name
        path.write_text(dumped().replace("-A OUTPUT -j", f"{DNAT.format(to)}-A OUTPUT -j"))
        files.append(str(path))
    return command("prove", "--file", files[0], "--same-as", files[1], "--own", "10.0.0.2", "--json")


def test_the_plainest_packet_comes_first_and_is_one_that_people_meet(tmp_path: Path):
    path = tmp_path / "rules.txt"
    path.write_text(dumped(outbound_ports_excluded="22"))
    found = command("prove", "--same-as", str(path), "--own", "10.0.0.2", "--json").document
    first = found["packets"][0]["packet"]
    assert (first["protocol"], first["source"], first["state"]) == (6, "10.0.0.2", "NEW")
    for each in found["packets"]:
        assert not each["packet"]["destination"].startswith(("0.", "127.", "169.254.", "224.", "255."))
        assert each["packet"]["destination_port"] != 0

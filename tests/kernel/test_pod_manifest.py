"""The rules that a manifest means, in the kernel: where its annotations send connections."""

import shlex

import yaml

from tests.support.deploy import DEPLOYMENT, printed
from tests.support.netns import UPLINK, Pod

#: Addresses beyond the pod; the client answers for them.
WORLD, METADATA = "198.18.0.1", "198.18.2.1"
POD = UPLINK.ipv4[0]


def changed_deployment(pod: Pod) -> str:
    """Write the example's deployment with another excluded destination, and return where it is."""
    text = DEPLOYMENT.read_text(encoding="utf-8")
    file = pod.directory / "deployment.yaml"
    file.write_text(text.replace("169.254.169.254/32", f"{METADATA}/32"), encoding="utf-8")
    return str(file)


def arrivals(pod: Pod) -> dict[str, str]:
    """Return who answers the connections that the annotations are about."""
    app = {"uid": 1000, "gid": 1000}
    calls = {
        "client to the application": pod.client.connect(POD, 8080),
        "client to its metrics": pod.client.connect(POD, 9102),
        "client to the health check": pod.client.connect(POD, 15021),
        "application to the world": pod.connect(WORLD, 80, **app),
        "application to its database": pod.connect(WORLD, 3306, **app),
        "application to the metadata": pod.connect(METADATA, 80, **app),
        "proxy to the world": pod.connect(WORLD, 80, uid=1337, gid=1337),
    }
    return {
        what: f"{call.arrival.name}:{call.arrival.port}" if call.arrival else call.error
        for what, call in calls.items()
    }


def rules(pod: Pod) -> list[str]:
    """Return the rules of IPv4, of either variant."""
    saved = pod.save("legacy", "ipv4") + pod.save("nft", "ipv4")
    return [line for line in saved.splitlines() if line.startswith("-A ")]


def test_connections_go_where_the_annotations_say():
    with Pod(ipv6=False) as pod:
        pod.listen("app", tcp=[8080, 9102], uid=1000, gid=1000)
        pod.listen("proxy", tcp=[15001, 15006, 15021], uid=1337, gid=1337)
        pod.client.listen("world", tcp=[80, 3306])
        file = changed_deployment(pod)
        done = pod.tool("--pod", file)
        assert done.code == 0, done.err
        assert "(deployment web: annotation traffic.sidecar.istio.io/excludeOutboundPorts)" in done.err
        assert arrivals(pod) == {
            "client to the application": "proxy:15006",
            "client to its metrics": "app:9102",
            "client to the health check": "proxy:15021",
            "application to the world": "proxy:15001",
            "application to its database": "world:3306",
            "application to the metadata": "world:80",
            "proxy to the world": "world:80",
        }

        # The container that is made of the manifest finds these rules in place, and needs no lock file.
        [container] = yaml.safe_load(printed("pod", "init-container", file))
        done = pod.tool(*container["args"], env={"XTABLES_LOCKFILE": "/does/not/exist"})
        assert (done.code, done.out) == (0, "")
        assert "nothing to do" in done.err
        shell = printed("pod", "args", file, "--format=shell").splitlines()[-1]
        assert pod.tool(*shlex.split(shell)[1:], "diff").code == 0

        # A mistake in it changes nothing.
        before = rules(pod)
        broken = pod.directory / "broken.yaml"
        broken.write_text(DEPLOYMENT.read_text(encoding="utf-8").replace('"3306"', "x"), encoding="utf-8")
        done = pod.tool("--reconcile", "--pod", str(broken))
        assert done.code == 2
        assert "excludeOutboundPorts: 'x' is not a port" in done.err
        assert rules(pod) == before != []


def test_a_container_may_start_first_on_a_read_only_file_system():
    with Pod(ipv6=False) as pod:
        [container] = yaml.safe_load(printed("pod", "init-container", str(DEPLOYMENT)))
        done = pod.tool(*container["args"], env={"XTABLES_LOCKFILE": "/does/not/exist"})
        assert done.code == 0, done.err
        assert "-A ISTIO_OUTPUT -p tcp -m tcp --dport 3306 -j RETURN" in rules(pod)

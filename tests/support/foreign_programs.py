"""Programs of others that write rules: firewalld, ufw, shorewall, ferm, netavark, CNI plugins, podman.

They are Debian's, unpacked in a sandbox (tools/foreign-programs fetches the packages): installed on the
machine, firewalld would start and change its network. Each is given what it takes to write rules of many
kinds, and runs in a network namespace.

    python -m tests.support.foreign_programs --write    record what they write, in tests/fixtures/iptables
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from typing import NamedTuple

from tests.support import netns, sandbox
from tests.support.netns import ROOT, Namespace
from tests.support.sandbox import Sandbox

FETCHED = ROOT / ".foreign-programs"
RECORDED = ROOT / "tests/fixtures/iptables"
FAMILIES = ("ipv4", "ipv6")


class Program(NamedTuple):
    """A program: what has to be there, what a shell does to have it write rules, and with which iptables.

    In the script `$other` is the name of a second namespace, for a container. With `systemd` the sandbox has
    one, and so processes and control groups of its own.
    """

    name: str
    file: str
    variant: str
    script: str
    systemd: bool = False

    def __str__(self) -> str:
        return f"{self.name}-{self.variant}"

    def why_not(self) -> str:
        """Return why it cannot run here, or nothing if it can."""
        reason = why_not()
        if not reason and self.systemd:
            reason = sandbox.why_no_systemd()
        return reason


@functools.cache
def why_not() -> str:
    """Return why no program can run here, or nothing if they can."""
    if netns.why_not():
        return netns.why_not()
    there = (FETCHED / "complete").exists()
    return "" if there else "`make system` has not fetched the programs (tools/foreign-programs)"


#: The files belong to root, whoever has fetched them.
_INSTALL = "cp -R --preserve=mode,links {files}/. / && ldconfig"

#: `iptables` is the variant wanted.
_CHOOSE = """
for family in iptables ip6tables; do
    for name in $family $family-save $family-restore; do
        ln -sf "$(command -v xtables-{variant}-multi)" "$(command -v $name)"
    done
done
"""

#: eth0 leads to the world, eth1 to a network.
_INTERFACES = """
ip link add eth0 type veth peer name eth1
ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8::2/64 dev eth0 nodad
ip addr add 10.5.0.1/24 dev eth1; ip addr add fd05::1/64 dev eth1 nodad
ip link set eth0 up; ip link set eth1 up
ip route add default via 192.0.2.1; ip route add default via 2001:db8::1
"""

_UFW = """
cp /usr/share/ufw/*.rules /usr/share/ufw/*.init /usr/share/ufw/ufw.conf /etc/ufw/
ufw default deny incoming
ufw logging medium
ufw allow 22/tcp
ufw limit 2222/tcp
ufw allow from 10.0.0.0/8 to any port 53 proto udp comment 'names'
ufw allow proto tcp from fd00::/8 to any port 80,443
ufw route allow in on eth0 out on eth1 to 10.1.0.0/16 port 80 proto tcp
ufw deny out 25
ufw reject in on eth1 from 192.0.2.0/24
ufw --force enable
"""

# Killed, and not ended, it leaves its rules.
_FIREWALLD = r"""
offline() { firewall-offline-cmd "$@" >/dev/null; }
sed -i 's/^FirewallBackend=.*/FirewallBackend=iptables/' /etc/firewalld/firewalld.conf
offline --add-service=http
offline --add-port=8080-8090/tcp
offline --add-masquerade
offline --add-forward-port=port=8443:proto=tcp:toport=443:toaddr=10.0.0.5
offline --add-icmp-block=redirect
rule='rule family=ipv4 source address=10.0.0.0/8 port port=53 protocol=udp'
offline --add-rich-rule="$rule log prefix='a b' limit value=5/m reject"
offline --add-rich-rule='rule family=ipv6 source address=fd00::/8 service name=ssh accept'
offline --new-ipset=bad --type=hash:net
offline --ipset=bad --add-entry=198.51.100.0/24
offline --zone=drop --add-source=ipset:bad
offline --zone=internal --add-interface=eth1
offline --set-log-denied=all
offline --direct --add-rule ipv4 filter INPUT 0 -p tcp --dport 113 -j REJECT --reject-with tcp-reset
cat >/started <<'END'
mkdir -p /run/dbus
dbus-daemon --system --fork
firewalld --nofork --nopid >/firewalld.log 2>&1 &
for second in $(seq 60); do
    # It answers once it has written its rules.
    if dbus-send --system --print-reply --reply-timeout=60000 --dest=org.fedoraproject.FirewallD1 \
        /org/fedoraproject/FirewallD1 org.freedesktop.DBus.Peer.Ping >/dev/null 2>&1; then exit 0; fi
    sleep 0.5
done
cat /firewalld.log
exit 1
END
exec unshare --pid --fork --kill-child sh /started
"""

_SHOREWALL = """
for each in shorewall shorewall6; do
    cp /usr/share/doc/$each/examples/two-interfaces/* /etc/$each/
    sed -i 's/^STARTUP_ENABLED=.*/STARTUP_ENABLED=Yes/' /etc/$each/$each.conf
    mkdir -p /var/lib/$each
done
echo 'DNAT net loc:10.5.0.7:80 tcp 8080' >>/etc/shorewall/rules
echo 'ACCEPT net $FW tcp 22 - - s:3/min:5' >>/etc/shorewall/rules
shorewall start
shorewall6 start
"""

_FERM = r"""
cat >/rules.ferm <<'END'
domain (ip ip6) {
    table filter {
        chain (INPUT FORWARD) {
            policy DROP;
            mod conntrack ctstate INVALID DROP;
            mod conntrack ctstate (ESTABLISHED RELATED) ACCEPT;
        }
        chain INPUT {
            interface lo ACCEPT;
            proto tcp dport (22 80:90) ACCEPT;
            proto udp mod multiport destination-ports (53 123 500) mod comment comment "some services" ACCEPT;
            proto tcp syn mod limit limit 5/minute limit-burst 10 LOG log-prefix "new: ";
            proto tcp REJECT reject-with tcp-reset;
        }
        chain OUTPUT mod owner uid-owner 33 proto tcp dport ! 443 DROP;
    }
    table mangle chain PREROUTING {
        mod mark mark 0x10/0xf0 CONNMARK save-mark;
        interface eth0 MARK set-mark 7;
    }
}
domain ip table nat {
    chain PREROUTING daddr 192.0.2.2 proto tcp dport 8080 DNAT to 10.5.0.7:80-90;
    chain POSTROUTING outerface eth0 saddr 10.5.0.0/24 MASQUERADE;
}
domain ip table raw chain PREROUTING proto udp dport 53 CT notrack;
END
ferm /rules.ferm
"""

_NETAVARK = """
cat >/network.json <<END
{"container_id": "cafecafecafecafecafecafecafecafecafecafecafecafecafecafecafecafe",
 "container_name": "web",
 "networks": {"podman": {"static_ips": ["10.88.5.2", "fd05::2"], "interface_name": "eth0"}},
 "network_info": {"podman": {
  "name": "podman", "id": "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9",
  "driver": "bridge", "network_interface": "podman1", "ipam_options": {"driver": "host-local"},
  "dns_enabled": false, "internal": false, "ipv6_enabled": true,
  "subnets": [{"gateway": "10.88.5.1", "subnet": "10.88.5.0/24"},
              {"gateway": "fd05::1", "subnet": "fd05::/64"}]}},
 "port_mappings": [
  {"container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp", "range": 1},
  {"container_port": 53, "host_ip": "10.9.9.9", "host_port": 5300, "protocol": "udp", "range": 3}]}
END
/usr/lib/podman/netavark setup "/run/netns/$other" </network.json
"""

#: A runtime calls the plugins of a list one after the other, each with the result of the one before.
_CNI = """
cat >/plugins.py <<'END'
import json, os, subprocess, sys
ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
         {"hostPort": 5300, "containerPort": 53, "protocol": "udp", "hostIP": "10.9.9.9"}]
ranges = [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]]
ipam = {"type": "host-local", "dataDir": "/ipam", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
result = None
for plugin in (
    {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "ipam": ipam},
    {"type": "portmap", "capabilities": {"portMappings": True}, "runtimeConfig": {"portMappings": ports}},
    {"type": "firewall", "backend": "iptables"},
):
    environment = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "cafe01", "CNI_IFNAME": "eth0",
                   "CNI_PATH": "/usr/lib/cni", "CNI_NETNS": f"/run/netns/{sys.argv[1]}",
                   "PATH": os.environ["PATH"]}
    order = {"cniVersion": "0.4.0", "name": "pods", **plugin}
    if result:
        order["prevResult"] = result
    done = subprocess.run([f"/usr/lib/cni/{plugin['type']}"], input=json.dumps(order), env=environment,
                          stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stdout)
    result = json.loads(done.stdout)
END
/usr/bin/python3 /plugins.py "$other"
"""

#: In a sandbox with a systemd /proc/sys is read-only; of the network it is the namespace's own.
_PODMAN = """
mount -t proc proc /mnt && mount --bind /mnt/sys/net /proc/sys/net && umount -l /mnt
rm -f /etc/containers/libpod.conf
mkdir /container
cp -L --parents /bin/sleep $(ldd /bin/sleep | grep -o '/[^ ]*') /container
cat >/containers.conf <<'END'
[network]
network_backend = "{backend}"
[containers]
pids_limit = 0
default_ulimits = []
[engine]
runtime = "runc"
events_logger = "file"
cgroup_manager = "cgroupfs"
END
export CONTAINERS_CONF=/containers.conf
podman="podman --root /storage --runroot /running --storage-driver vfs"
ports="--publish 8080:80 --publish 9000-9002:7000-7002/udp"
$podman create --name web $ports --rootfs /container /bin/sleep 60
$podman start web
"""

PROGRAMS = (
    *(Program("ufw", "/usr/sbin/ufw", variant, _INTERFACES + _UFW) for variant in ("legacy", "nft")),
    *(
        Program("firewalld", "/usr/sbin/firewalld", variant, _INTERFACES + _FIREWALLD)
        for variant in ("legacy", "nft")
    ),
    Program("shorewall", "/usr/sbin/shorewall", "nft", _INTERFACES + _SHOREWALL),
    Program("ferm", "/usr/sbin/ferm", "legacy", _INTERFACES + _FERM),
    Program("netavark", "/usr/lib/podman/netavark", "nft", _NETAVARK),
    Program("cni-plugins", "/usr/lib/cni/portmap", "legacy", _CNI),
    Program("podman-netavark", "/usr/bin/podman", "legacy", _PODMAN.format(backend="netavark"), systemd=True),
    Program("podman-cni", "/usr/bin/podman", "nft", _PODMAN.format(backend="cni"), systemd=True),
)


class NotThereError(Exception):
    """No package of this release has the program."""


@contextlib.contextmanager
def run(program: Program) -> Iterator[Namespace]:
    """Have a program write its rules: return the namespace that has them."""
    with Namespace() as namespace, Namespace("c") as container:
        own = namespace if program.systemd else None
        with Sandbox(own, systemd=program.systemd) as place:
            done = place.run(_INSTALL.format(files=FETCHED / "root"), merged=True)
            assert done.returncode == 0, done.stdout
            if place.run(f"test -e {program.file}").returncode:
                raise NotThereError(f"no package of this release has {program.file}")
            choice = _CHOOSE.format(variant=program.variant)
            script = f"set -e\nother={container.name}\n{choice}{program.script}"
            done = place.run(script, namespace, merged=True)
            assert done.returncode == 0, f"{program}: {done.stdout}"
            yield namespace


def dump(namespace: Namespace, variant: str, family: str, *options: str) -> str:
    """What iptables-save prints."""
    command = {"ipv4": "iptables", "ipv6": "ip6tables"}[family]
    return namespace.run([f"{command}-{variant}-save", *options]).stdout


def record() -> None:
    """Write what the programs write into the folder of recorded dumps, both families in one file."""
    RECORDED.mkdir(parents=True, exist_ok=True)
    for program in PROGRAMS:
        with run(program) as namespace:
            text = "".join(dump(namespace, program.variant, family, "-c") for family in FAMILIES)
            (RECORDED / f"{program}.txt").write_text(text)
            sets = namespace.run(["ipset", "save"]).stdout
            if sets:
                (RECORDED / f"{program}.ipset").write_text(sets)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    if why_not():
        sys.exit(why_not())
    record()

"""Real connections against the rules: every setting that changes where a connection goes, on every backend.

Below is a table. Each paragraph is one configuration: a title, the settings after `$`, and then connections:

    WHO [from ADDRESS[:PORT]] > ADDRESS:PORT[/KIND]   ARRIVES AT     # why

WHO      client (outside the pod), vm (a virtual machine in the pod), or a process of the pod: app (UID and
         GID 1000), proxy (both 1337) or UID:GID. `from` binds the source, to any address at all if there is
         also a mark: `0:1337 mark 1337` is the proxy that calls the application as the client.
ADDRESS  a name of ADDRESSES, which stands for an address of each family, or an address. A row with names is
         done for IPv4 and for IPv6, whichever the pod has; with `v4` or `v6` before it, for that one only.
KIND     tcp if it is left out; udp; or the flags of one segment that belongs to no connection: fin+ack.
ARRIVES  app, world (wherever it was dialled, beyond the pod): no address or port was changed.
         proxy:PORT, agent:PORT: that listener got it, and SO_ORIGINAL_DST is what was dialled.
         tproxy:PORT: the proxy's transparent listener got it, and nothing was changed.
         reset, silence: for a single segment, what comes back.

         timeout: no answer.

Always, and for every row: the listener sees the caller's own address, and the caller gets the answer from
where it dialled. Some words of the settings describe the pod. `pod=4,6`: it has addresses of both families.
`pod=4+6`: and --dual-stack is given; so it is where nothing is said. `+vm`: and there is a virtual machine.
`proxy=UID:GID`: who listens as the proxy. `dns=`: the servers in /etc/resolv.conf. Capitals are variables.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from istio_iptables.settings.config import Config
from istio_iptables.settings.declared import SETTINGS
from tests.support.netns import Namespace, Pod, left_behind
from tests.support.netns_helper import SILENCE_LIMIT
from tests.support.scenarios import ADDRESSES, BACKENDS, OWNERS, Row, Scenario, apply, resolve, word

TABLE = r"""
as Istio's injector calls it
$ pod=4  istio-iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x '' -b * -d 15090,15021,15020
$        --log_output_level=default:info
client > pod:8080                           proxy:15006
client > pod-lo1:8080                       proxy:15006
client > pod:15008                          proxy:15008   # HBONE is the proxy's own business
client > pod:15090                          app           # here the proxy would listen, as itself
client > pod:15020                          app
app > world:80                              proxy:15001
app > side:443                              proxy:15001
app > client:80                             proxy:15001
proxy > world:80                            world
app > pod:8080                              app           # the application calls itself
app > self:8080                             app
proxy > pod:8080                            proxy:15006   # calls a service of its own pod: inbound
proxy > pod:15008                           proxy:15008
proxy > self:8080                           app
proxy from passthrough > pod:8080           app           # what came in, handed on
app > world:53/udp                          world
client > pod:53/udp                         app
client > pod:8080/fin+ack                   reset

no settings, both families
$
client > pod:8080                           proxy:15006
client > pod-lo1:8080                       proxy:15006
client > pod:15008                          proxy:15008
app > world:80                              proxy:15001
app > side:80                               proxy:15001   # lo1 is not lo
app > client:80                             proxy:15001
app > pod:8080                              app
app > pod:53                                app
app > pod-lo1:8080                          app
app > self:8080                             app
v4 app > 127.9.9.9:8080                     app
app > world:8080/udp                        world
app > self:8080/udp                         app
client > pod:8080/udp                       app
proxy > world:80                            world
proxy > side:80                             world
proxy > pod:8080                            proxy:15006
proxy > pod-lo1:8080                        proxy:15006
proxy > pod:15008                           proxy:15008
proxy > self:8080                           app
v4 proxy > 127.9.9.9:8080                   proxy:15006   # beyond the loopback CIDR, which is 127.0.0.1/32
proxy from passthrough > pod:8080           app
app from passthrough > pod:8080             app
app from passthrough > self:8080            app
0:0 > world:80                              proxy:15001
client > pod:8080/fin+ack                   reset
client > pod:8080/syn+ack                   reset

IPv6 only
$ pod=6
client > pod:8080                           proxy:15006
app > world:80                              proxy:15001
app > side:80                               proxy:15001
app > pod:8080                              app
app > self:8080                             app
proxy > world:80                            world
proxy > pod:8080                            proxy:15006
proxy from passthrough > pod:8080           app

IPv6 is there but off
$ pod=4,6  proxy=0:1337  -m TPROXY --redirect-dns --capture-all-dns --drop-invalid
v4 client > pod:8080                        tproxy:15006
v4 app > world:80                           proxy:15001
v4 app > world:53/udp                       agent:15053
v6 client > pod:8080                        app
v6 app > world:80                           world
v6 app > world:53                           world
v6 app > world:53/udp                       world
v6 app > pod:8080                           app
v6 proxy > pod:8080                         app
v6 client > pod:8080/fin+ack                reset


# --- inbound: -b, -d ----------------------------------------------------------------------------------------

all inbound ports, and none of the outbound
$ -b * -i ''
client > pod:1                              proxy:15006
client > pod:65535                          proxy:15006
app > world:80                              world
app > pod:8080                              app
proxy > world:80                            world
proxy > pod:8080                            proxy:15006

no inbound port
$ -b '' -d 8080
client > pod:8080                           app
client > pod:15008                          proxy:15008
app > world:80                              proxy:15001
proxy > pod:8080                            proxy:15006   # by what goes out, not by what comes in

some inbound ports
$ -b 8080,9000-9002,9100:9101,15008 -d 8080,9001
client > pod:8080                           proxy:15006   # -d counts with `*` only
client > pod:8079                           app
client > pod:8081                           app
client > pod:8999                           app
client > pod:9000                           proxy:15006
client > pod:9001                           proxy:15006
client > pod:9002                           proxy:15006
client > pod:9003                           app
client > pod:9100                           proxy:15006
client > pod:9101                           proxy:15006
client > pod:9102                           app
client > pod:15008                          proxy:15008   # the tunnel takes precedence over the list
client > pod:9000/udp                       app
app > world:9000                            proxy:15001

all inbound ports but some
$ -b * -d 8080,9000-9002
client > pod:8080                           app
client > pod:8081                           proxy:15006
client > pod:8999                           proxy:15006
client > pod:9000                           app
client > pod:9001                           app
client > pod:9002                           app
client > pod:9003                           proxy:15006
app > world:8080                            proxy:15001   # outbound traffic is not affected
proxy > pod:8080                            proxy:15006


# --- other ports of the proxy: -p, -z, -e -------------------------------------------------------------------

other ports of the proxy
$ -p 16001 -z 16006 -e 16008
client > pod:8080                           proxy:16006
client > pod:16008                          proxy:16008
client > pod:15008                          proxy:16006
app > world:80                              proxy:16001
app > world:15008                           proxy:16001
proxy > pod:8080                            proxy:16006
proxy > pod:16008                           proxy:16008
proxy > pod:15008                           proxy:16006
1001:1337 > pod:16008                       proxy:16008


# --- outbound: -i, -x, -q, -o -------------------------------------------------------------------------------

some destinations
$ -i 198.18.1.0/24,2001:db8:1::/48,198.18.2.1,2001:db8:2::1
app > blue:80                               proxy:15001
v4 app > 198.18.1.255:80                    proxy:15001
v6 app > 2001:db8:1:ffff::1:80              proxy:15001
app > green:80                              proxy:15001
v4 app > 198.18.2.2:80                      world
v6 app > 2001:db8:2::2:80                   world
app > world:80                              world
app > client:80                             world
app > pod:8080                              app
proxy > blue:80                             world
proxy > pod:8080                            proxy:15006
client > pod:8080                           proxy:15006

all destinations but some
$ -i * -x 198.18.1.0/24,2001:db8:1::/48,198.18.2.1,2001:db8:2::1
app > blue:80                               world
app > green:80                              world
v4 app > 198.18.2.2:80                      proxy:15001
v6 app > 2001:db8:2::2:80                   proxy:15001
app > world:80                              proxy:15001
client > pod:8080                           proxy:15006

some destinations, some of them excluded, and ports
$ -i 198.18.0.0/16,2001:db8::/32 -x 198.18.1.0/24,2001:db8:1::/48 -q 8443 -o 3306
app > world:80                              proxy:15001
app > blue:80                               world
app > blue:8443                             world         # excluded destinations go before captured ports
app > world:3306                            world
app > client:8443                           proxy:15001
app > client:80                             world

all destinations of one family
$ -i 0.0.0.0/0,2001:db8::/32 -x ::/0
v4 app > world:80                           proxy:15001
v6 app > world:80                           world
client > pod:8080                           proxy:15006

some ports, whatever the destination
$ -i '' -q 8443,9000-9001
app > world:8443                            proxy:15001
app > side:9000                             proxy:15001
app > world:9001                            proxy:15001
app > world:9002                            world
app > world:443                             world
app > pod:8443                              app
app > self:8443                             app
proxy > world:8443                          world
app > world:8443/udp                        world
client > pod:8443                           proxy:15006

all ports but some
$ -o 3306,5000-5002 -q 3306
app > world:3306                            world
app > world:4999                            proxy:15001
app > world:5000                            world
app > world:5002                            world
app > world:5003                            proxy:15001
proxy > pod:3306                            app           # and so does what the proxy sends to its own pod
proxy > pod:3307                            proxy:15006
client > pod:3306                           proxy:15006


# --- loopback: ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR, and -i that names it --------------------------------------

a wider loopback network
$ ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR=127.0.0.0/8
proxy > self:8080                           app
v4 proxy > 127.9.9.9:8080                   app
v4 app > 127.9.9.9:8080                     app
proxy > pod:8080                            proxy:15006
app > world:80                              proxy:15001

loopback traffic is wanted at the proxy
$ -i 127.9.9.9/32,198.18.1.0/24,2001:db8:1::/48
v4 app > 127.9.9.9:8080                     proxy:15001
v4 app > 127.9.9.8:8080                     app
app > self:8080                             app
app > pod:8080                              app           # not in the list
app > blue:80                               proxy:15001
app > world:80                              world
proxy > pod:8080                            proxy:15006
1001:1337 > pod:8080                        proxy:15006   # now the group gets its turn
1001:1337 > pod:15008                       proxy:15008
1001:1337 > self:8080                       app
1001:1337 > blue:80                         world
v4 proxy > 127.9.9.9:8080                   proxy:15006

loopback traffic is wanted at the proxy, all but the loopback network
$ -i 127.0.0.0/8,10.88.0.0/24,::1/128,fd88::/64 ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR=127.9.0.0/16
v4 app > 127.9.9.9:8080                     app
v4 app > 127.8.8.8:8080                     proxy:15001
v4 app > self:8080                          proxy:15001
v6 app > self:8080                          app
app > pod:8080                              proxy:15001
app > pod-lo1:8080                          app


# --- who the proxy is: -u, -g -------------------------------------------------------------------------------

the user alone, and the group alone
$ -u 1337 -g 1338
1337:1000 > world:80                        world
1337:1000 > pod:8080                        proxy:15006
1337:1000 > self:8080                       app
1337:1338 > world:80                        world
1000:1338 > world:80                        world
1000:1338 > pod:8080                        app           # for the user's rule it is the application
1000:1337 > world:80                        proxy:15001   # the number of the user is not a group's
1338:1000 > world:80                        proxy:15001
app > world:80                              proxy:15001
client > pod:8080                           proxy:15006

the group is the one that counts
$ -u 1336 -g 1337
1336:1000 > world:80                        world
1000:1337 > world:80                        world
1337:1000 > world:80                        proxy:15001
1336:1337 > world:80                        world
1336:1000 > pod:8080                        proxy:15006
1000:1337 > pod:8080                        app

no -g
$ -u 2337
2337:1000 > world:80                        world
1000:2337 > world:80                        world         # -g is as -u
proxy > world:80                            proxy:15001

the user that a variable names
$ ENVOY_USER=nobody
65534:1000 > world:80                       world
1000:65534 > world:80                       world
proxy > world:80                            proxy:15001

several users and groups
$ -u 1337,2337 -g 3337,4337
1337:1000 > world:80                        world
2337:1000 > world:80                        world
1000:3337 > world:80                        world
1000:4337 > world:80                        world
1337:1000 > pod:8080                        proxy:15006
2337:1000 > pod:8080                        app           # for the first user's rule it is the application
3337:1000 > world:80                        proxy:15001
1000:1337 > world:80                        proxy:15001


# --- whose traffic: owner groups ----------------------------------------------------------------------------

only some groups
$ ISTIO_OUTBOUND_OWNER_GROUPS=2000,2001
1000:2000 > world:80                        proxy:15001
1000:2001 > world:80                        proxy:15001
2000:2002 > world:80                        world         # groups, not users
app > world:80                              world
0:0 > world:80                              world
proxy > world:80                            world
proxy > pod:8080                            proxy:15006
client > pod:8080                           proxy:15006

only some groups, and DNS
$ ISTIO_OUTBOUND_OWNER_GROUPS=2000 --redirect-dns --capture-all-dns
1000:2000 > world:53/udp                    agent:15053
1000:2000 > world:53                        agent:15053
app > world:53/udp                          world
app > world:53                              world

no group at all
$ ISTIO_OUTBOUND_OWNER_GROUPS=''
app > world:80                              world
0:0 > world:80                              world
proxy > pod:8080                            proxy:15006
client > pod:8080                           proxy:15006

all groups but some
$ ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE=2000,root --redirect-dns --capture-all-dns
1000:2000 > world:80                        world
1000:0 > world:80                           world
1000:2000 > world:53/udp                    world
0:2001 > world:80                           proxy:15001
app > world:80                              proxy:15001
app > world:53/udp                          agent:15053
1000:2000 > pod:8080                        app
client > pod:8080                           proxy:15006


# --- interfaces: -c, -k -------------------------------------------------------------------------------------

without one interface
$ -c lo1
client > pod-lo1:8080                       app
client > pod:8080                           proxy:15006
app > side:80                               world
app > world:80                              proxy:15001
app > pod-lo1:8080                          app
proxy > pod-lo1:8080                        proxy:15006   # on the way to itself it passes lo, not lo1

without the interfaces of a pattern
$ -c net9,lo+
client > pod-lo1:8080                       app
client > pod:8080                           proxy:15006
app > side:80                               world
proxy > pod:8080                            app           # lo is one of them
app > world:80                              proxy:15001

without any interface
$ -c +
client > pod:8080                           app
app > world:80                              world
app > side:80                               world
proxy > pod:8080                            app

a virtual machine that nothing is known about
$ pod=4+6+vm
vm > world:80                               proxy:15006
vm > pod:8080                               proxy:15006
client > pod:8080                           proxy:15006

a virtual machine with two interfaces
$ pod=4+6+vm -k vm0,vm1
vm > world:80                               proxy:15001
vm > side:80                                proxy:15001
vm > pod:8080                               proxy:15001
vm > pod-vm0:8080                           proxy:15001
vm > world:80/udp                           world
client > pod:8080                           proxy:15006
app > world:80                              proxy:15001

a virtual machine, one interface of two
$ pod=4+6+vm -k vm0
vm > world:80                               proxy:15001
vm > side:80                                proxy:15006

a virtual machine, some destinations
$ pod=4+6+vm -k vm+ -i 198.18.1.0/24,2001:db8:1::/48,198.18.2.0/24,2001:db8:2::/48
vm > blue:80                                proxy:15001
vm > green:80                               proxy:15001
vm > world:80                               world
vm > side:80                                world
vm > pod:8080                               app           # never inbound
client > pod:8080                           proxy:15006

a virtual machine, no destination
$ pod=4+6+vm -k vm0,vm1 -i '' -b 80
vm > world:80                               world
vm > side:80                                world
client > pod:80                             proxy:15006


# --- DNS: --redirect-dns, --capture-all-dns -----------------------------------------------------------------

DNS, the servers of resolv.conf
$ dns=198.18.53.1,2001:db8:53::1,198.18.53.2,2001:db8:53::2,127.0.0.53  --redirect-dns
app > dns:53/udp                            agent:15053
app > dns:53                                agent:15053
app > dns2:53/udp                           agent:15053
app > dns2:53                               agent:15053
v4 app > 127.0.0.53:53/udp                  agent:15053   # a resolver of the pod's own
v4 app > 127.0.0.53:53                      agent:15053
app > world:53/udp                          world         # another server
app > world:53                              proxy:15001
app > dns:54/udp                            world
app > dns:54                                proxy:15001
app > self:53/udp                           app
app > self:53                               app
proxy > dns:53/udp                          world         # the agent's own queries
proxy > dns:53                              world
1337:1000 > dns:53/udp                      world
1000:1337 > dns:53/udp                      world
1337:1000 > dns:53                          world
1000:1337 > dns:53                          world
proxy > pod:53                              app           # the user may call a DNS server of the pod
1000:1337 > pod:53                          proxy:15006   # the group may not
proxy > pod:8080                            proxy:15006
proxy > pod:15008                           proxy:15008
app > pod:8080                              app
client > pod:53/udp                         app
client > pod:53                             proxy:15006
app > world:80                              proxy:15001

DNS, the agent asks from the port that the application has asked from
$ dns=198.18.53.1,2001:db8:53::1  --redirect-dns
app from pod:4053 > dns:53/udp              agent:15053
proxy from pod:4053 > dns:53/udp            world
app from pod:4053 > dns:53/udp              agent:15053
1000:1337 from pod:4053 > dns:53/udp        world
1337:1000 from pod:4053 > dns:53/udp        world
1337:1000 from pod:4054 > dns:53/udp        world
app from pod:4054 > dns:53/udp              agent:15053

DNS, servers of one family
$ dns=198.18.53.1  --redirect-dns
v4 app > dns:53/udp                         agent:15053
v4 app > dns:53                             agent:15053
v6 app > dns:53/udp                         world
v6 app > dns:53                             proxy:15001
v4 proxy > dns:53/udp                       world
v6 proxy > dns:53/udp                       world

DNS, no servers
$ dns=  --redirect-dns
app > dns:53/udp                            world
app > dns:53                                proxy:15001
proxy > dns:53/udp                          world
app > self:53/udp                           app
app > pod:53                                app           # as without --redirect-dns
v4 app > 127.0.0.53:53                      app
proxy > pod:53                              proxy:15006

DNS not wanted
$ dns=198.18.53.1,2001:db8:53::1  --capture-all-dns
app > dns:53/udp                            world
app > dns:53                                proxy:15001
app > self:53/udp                           app
v4 app > 127.0.0.53:53/udp                  app

all DNS
$ dns=198.18.53.1  --redirect-dns --capture-all-dns
app > dns:53/udp                            agent:15053
app > dns2:53/udp                           agent:15053
app > world:53                              agent:15053
app > self:53/udp                           agent:15053
app > self:53                               agent:15053
app > pod:53/udp                            agent:15053
app > pod:53                                agent:15053
app > world:54/udp                          world
proxy > dns:53/udp                          world
proxy > dns:53                              world
1337:1000 > world:53/udp                    world
1000:1337 > world:53/udp                    world
app from pod:4053 > world:53/udp            agent:15053
proxy from pod:4053 > world:53/udp          world
app > world:80                              proxy:15001
app > pod:8080                              app
client > pod:53/udp                         app

DNS, the agent is known by its user alone
$ dns=198.18.53.1,2001:db8:53::1  proxy=1337:1000  --redirect-dns -u 1337 -g 1338
app > dns:53/udp                            agent:15053
app > dns:53                                agent:15053
1337:1000 > dns:53/udp                      world
app from pod:4053 > dns:53/udp              agent:15053
1337:1000 from pod:4053 > dns:53/udp        world

DNS, the agent is known by its group alone
$ dns=198.18.53.1,2001:db8:53::1  proxy=1000:1338  --redirect-dns --capture-all-dns -u 1337 -g 1338
app > dns:53/udp                            agent:15053
app > dns:53                                agent:15053
1000:1338 > dns:53/udp                      world
app from pod:4053 > dns:53/udp              agent:15053
1000:1338 from pod:4053 > dns:53/udp        world

DNS, but port 53 is excluded
$ dns=198.18.53.1,2001:db8:53::1  --redirect-dns -o 53
app > dns:53/udp                            world
app > dns:53                                world
proxy > dns:53/udp                          world
app > world:80                              proxy:15001

DNS, IPv6 only
$ pod=6  dns=198.18.53.1,2001:db8:53::1  --redirect-dns
app > dns:53/udp                            agent:15053
app > dns:53                                agent:15053
app > dns2:53/udp                           world
proxy > dns:53/udp                          world
app from pod:4053 > dns:53/udp              agent:15053
proxy from pod:4053 > dns:53/udp            world


# --- TPROXY -------------------------------------------------------------------------------------------------

TPROXY, all inbound ports but some
$ proxy=0:1337  -m TPROXY -d 15090,9000-9001
client > pod:8080                           tproxy:15006  # all addresses are kept
client > pod-lo1:8080                       tproxy:15006
client > pod:15008                          tproxy:15006  # mangle knows nothing of the tunnel
client > pod:15090                          app
client > pod:9000                           app
client > pod:9001                           app
client > pod:9002                           tproxy:15006
client > pod:8080/udp                       app
app > world:80                              proxy:15001
app > side:80                               proxy:15001
app > pod:8080                              app
app > self:8080                             app
proxy > world:80                            world
0:1337 > world:80                           world
0:1337 from pod:9003 > world:80             world         # answers to a port that is captured
0:1337 > pod:8080                           tproxy:15006  # its own pod's service
0:1337 > pod-lo1:8080                       tproxy:15006
0:1337 > self:8080                          app
0:0 mark 1338 > self:8080                   app           # the mark of such calls does not open loopback
0:1337 from passthrough > pod:8080          app
1337:1000 > pod:8080                        proxy:15006   # a proxy with the user's UID is redirected
0:1337 mark 1337 from client > pod:8080     app           # calls the application as the client
0:1337 mark 1337 from world > pod:8080      app
v4 0:1337 > 127.9.9.9:8080                  tproxy:15006
app from passthrough > pod:8080             app
client > pod:8080                           tproxy:15006

TPROXY, some inbound ports
$ proxy=0:1337  -m TPROXY -b 8080,8999-9001
client > pod:8080                           tproxy:15006
client > pod:8081                           app
client > pod:9000                           tproxy:15006
client > pod:9001                           tproxy:15006
client > pod:9002                           app
client > pod:15008                          proxy:15008
0:1337 from pod:8999 > world:80             world         # answers to a port that is captured
0:1337 > pod:8080                           tproxy:15006
0:1337 > pod:8081                           app
0:1337 mark 1337 from client > pod:8080     app
0:1337 mark 1337 from client > pod:8081     app

TPROXY, no inbound port
$ proxy=0:1337  -m TPROXY -b ''
client > pod:8080                           app
app > world:80                              proxy:15001
0:1337 > pod:8080                           app
0:1337 > world:80                           world
app > pod:8080                              app

TPROXY, other mark, table and ports
$ pod=4+6+vm  proxy=0:1337  -m TPROXY -t 77 -r 2024 -p 16001 -z 16006 -e 16008
client > pod:8080                           tproxy:16006
client > pod:16008                          tproxy:16006
app > world:80                              proxy:16001
0:1337 > pod:8080                           tproxy:16006
0:1337 mark 77 from client > pod:8080       app
0:1337 mark 77 from world > pod:8080        app
vm > world:80                               tproxy:16006  # not for an address of the pod: the mark is needed

TPROXY, the mark is that of the proxy's calls to its own pod
$ proxy=0:1337  -m TPROXY -t 1338
client > pod:8080                           tproxy:15006
0:1337 mark 1338 from client > pod:8080     app

TPROXY, a virtual machine that nothing is known about
$ pod=4+6+vm  proxy=0:1337  -m TPROXY -b 80,8080
vm > world:80                               tproxy:15006
vm > world:81                               world
vm > side:80                                tproxy:15006
vm > pod:8080                               tproxy:15006
client > pod:8080                           tproxy:15006

TPROXY, a virtual machine with two interfaces
$ pod=4+6+vm  proxy=0:1337  -m TPROXY -b 80,8080 -k vm0
vm > world:80                               proxy:15006   # mangle has chosen a listener before nat redirects
vm > world:81                               proxy:15001
vm > pod:81                                 proxy:15001
vm > side:81                                world
client > pod:8080                           tproxy:15006

TPROXY, without one interface
$ proxy=0:1337  -m TPROXY -c lo1
client > pod-lo1:8080                       app
client > pod:8080                           tproxy:15006
app > side:80                               world
app > world:80                              proxy:15001
0:1337 > pod-lo1:8080                       tproxy:15006
0:1337 mark 1337 from client > pod:8080     app
0:1337 mark 1337 from client-lo1 > pod-lo1:8080  timeout  # the answer leaves by lo1, to the real client

TPROXY, a wider loopback network
$ proxy=0:1337  -m TPROXY ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR=127.0.0.0/8
v4 0:1337 > 127.9.9.9:8080                  app
0:1337 > self:8080                          app
0:1337 > pod:8080                           tproxy:15006
client > pod:8080                           tproxy:15006

TPROXY, the user alone, the group alone
$ proxy=0:1338  -m TPROXY -u 1336,1337 -g 1338,1339
0:1338 > pod:8080                           tproxy:15006
0:1339 > pod:8080                           tproxy:15006
0:1337 > pod:8080                           app
1337:1000 > pod:8080                        tproxy:15006  # for nat it is the application
1336:1000 > pod:8080                        proxy:15006
0:1338 > world:80                           world
0:1339 > world:80                           world
1336:1000 > world:80                        world
1337:1000 > world:80                        world

TPROXY, DNS and invalid packets
$ proxy=0:1337  -m TPROXY --redirect-dns --capture-all-dns --drop-invalid
client > pod:8080                           tproxy:15006
app > world:53/udp                          agent:15053
app > world:53                              agent:15053
0:1337 > world:53/udp                       world
0:1337 mark 1337 from client > pod:8080     app
client > pod:8080/fin+ack                   silence

TPROXY, IPv6 only
$ pod=6  proxy=0:1337  -m TPROXY
client > pod:8080                           tproxy:15006
app > world:80                              proxy:15001
app > pod:8080                              app
0:1337 > pod:8080                           tproxy:15006
0:1337 from passthrough > pod:8080          app
0:1337 mark 1337 from client > pod:8080     app


# --- --drop-invalid -----------------------------------------------------------------------------------------

invalid packets are dropped
$ --drop-invalid
client > pod:8080/fin+ack                   silence
client > pod:8080/syn+ack                   silence
client > pod:8080                           proxy:15006
app > world:80                              proxy:15001
app > pod:8080                              app
proxy > world:80                            world

invalid packets are dropped, by the variable
$ INVALID_DROP=true -b ''
client > pod:8080/fin+ack                   silence
client > pod:8080                           app
"""


# --- reading the table --------------------------------------------------------------------------------------

ROW = re.compile(
    r"""
    (?: v(?P<version>[46]) \s )?
    (?P<who> [a-z]+ | \d+:\d+ )
    (?: \s mark \s (?P<mark>\d+) )?
    (?: \s from \s (?P<source>\S+) )?
    \s > \s (?P<address>\S+) : (?P<port>\d+) (?: / (?P<kind>[a-z+]+) )?
    \s+ (?P<arrives> app | world | reset | silence | timeout | (?:proxy|agent|tproxy):\d+ )
    (?: \s+ \# .* )?
    """,
    re.VERBOSE,
)
AGENT_PORT = 15053


def read_table(text: str) -> Iterator[Scenario]:
    """Return the paragraphs of the table; a line that is none of its kinds is a mistake."""
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line.rstrip() for line in paragraph.splitlines() if line and not line.startswith("#")]
        if not lines:
            continue
        scenario = Scenario(lines[0])
        for line in lines[1:]:
            if line.startswith("$"):
                scenario.describe(line[1:])
            else:
                scenario.rows.append(read_row(line))
        assert scenario.rows, f"{scenario.title}: no connections"
        yield scenario


def read_row(line: str) -> Row:
    found = ROW.fullmatch(line)
    assert found, f"not a row: {line!r}"
    who, version, address = found["who"], found["version"], found["address"]
    uid, gid = OWNERS.get(who, who).split(":")
    assert address in ADDRESSES or version, f"an address says nothing of the other family: {line!r}"
    return Row(
        text=" ".join(line.partition("#")[0].rpartition(found["arrives"])[0].split()),
        who=who if who in ("client", "vm") else "pod",
        uid=int(uid),
        gid=int(gid),
        mark=int(found["mark"] or 0),
        source=found["source"] or "",
        address=address,
        port=int(found["port"]),
        kind=found["kind"] or "tcp",
        versions=(int(version),) if version else (4, 6),
        arrives=found["arrives"],
    )


SCENARIOS = list(read_table(TABLE))

# --- making the connections ---------------------------------------------------------------------------------


def source_of(row: Row, version: int) -> tuple[str, int] | None:
    if not row.source:
        return None
    name, _, port = row.source.partition(":")
    return resolve(name, version), int(port or 0)


def arrival(row: Row, version: int, pod: Pod) -> str:
    """Make the connection and say, as the table writes it, where it arrived."""
    callers: dict[str, Namespace | None] = {"client": pod.client, "vm": pod.vm, "pod": pod}
    caller, address = callers[row.who], resolve(row.address, version)
    assert caller, "this pod has no virtual machine: say pod=4+6+vm"
    if row.kind not in ("tcp", "udp"):
        return caller.provoke(address, row.port, resolve(row.who, version), row.kind.split("+"))
    how: dict[str, Any] = {"uid": row.uid, "gid": row.gid, "source": source_of(row, version)}
    if row.arrives == "timeout":
        how["limit"] = SILENCE_LIMIT
    if row.kind == "udp":
        return word(caller.query(address, row.port, **how), row.kind)
    call = caller.connect(address, row.port, mark=row.mark, transparent=bool(row.mark), **how)
    return word(call, row.kind)


def populate(pod: Pod, scenario: Scenario) -> None:
    """Start everybody that a row could lead to, rightly or wrongly."""
    uid, gid = scenario.proxy
    taken = scenario.proxy_ports()
    tcp, udp = ({row.port for row in scenario.rows if row.kind == kind} for kind in ("tcp", "udp"))
    pod.client.listen("world", tcp=tcp, udp=udp)
    pod.listen("app", tcp=tcp - taken - {AGENT_PORT}, udp=udp - {AGENT_PORT}, uid=1000, gid=1000)
    pod.listen("proxy", tcp=taken, uid=uid, gid=gid, transparent=scenario.tproxy and uid == 0)
    # On these addresses, as Istio's does: it answers from the one that was asked.
    pod.listen(
        "agent",
        tcp=[AGENT_PORT],
        udp=[AGENT_PORT],
        addresses=[a for a, on in (("127.0.0.1", True), ("::1", pod.ipv6)) if on],
        uid=uid,
        gid=gid,
    )


def check(pod: Pod, rows: list[Row]) -> None:
    """Make all the connections, and fail with those that arrived elsewhere."""
    wrong = []
    for row in rows:
        for version, there in ((4, pod.ipv4), (6, pod.ipv6)):
            if there and version in row.versions:
                arrived = arrival(row, version, pod)
                if arrived != row.arrives:
                    wrong.append(f"  IPv{version}: {row.text:42} must arrive at {row.arrives}: {arrived}")
    if wrong:
        pytest.fail("\n".join(["not every connection arrives where it should:", *wrong]), pytrace=False)


# --- the tests ----------------------------------------------------------------------------------------------

each_backend = pytest.mark.parametrize("backend", BACKENDS)


@contextmanager
def pod_of(scenario: Scenario) -> Iterator[Pod]:
    families = scenario.families
    with Pod(
        ipv4="4" in families, ipv6="6" in families, vm="vm" in families, resolv_conf=scenario.resolv_conf
    ) as pod:
        populate(pod, scenario)
        yield pod


def scenario_of(title: str) -> Scenario:
    (found,) = (scenario for scenario in SCENARIOS if scenario.title == title)
    return found


@each_backend
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.title)
def test_connections_arrive_where_the_table_says(scenario: Scenario, backend: str) -> None:
    with pod_of(scenario) as pod:
        apply(pod, scenario, backend)
        check(pod, scenario.rows)


def test_without_rules_every_connection_arrives_where_it_was_dialled() -> None:
    """Else the table would show the wiring of the pod, not the rules."""
    rows = {
        "client > pod:8080": "app",
        "client > pod-lo1:8080": "app",
        "client > pod:15006": "proxy:15006",
        "client > pod:8080/udp": "app",
        "client > pod:8080/fin+ack": "reset",
        "client > pod:8080/syn+ack": "reset",
        "app > world:80": "world",
        "proxy > side:80": "world",
        "app > dns:53/udp": "world",
        "app > side:53/udp": "world",
        "app > client:80": "world",
        "app > pod:8080": "app",
        "app > self:53/udp": "app",
        "v4 app > 127.9.9.9:8080": "app",
        "v4 app from passthrough > pod:8080": "app",
        "app from pod:4053 > dns:53/udp": "world",
        "app > self:15053": "agent:15053",
        "app > self:15053/udp": "agent:15053",
        "vm > world:80": "world",
        "vm > side:80": "world",
        "vm > pod:8080": "app",
        "vm > pod-vm0:8080": "app",
    }
    scenario = Scenario(
        "", families="4+6+vm", rows=[read_row(f"{r} {arrives}") for r, arrives in rows.items()]
    )
    with pod_of(scenario) as pod:
        check(pod, scenario.rows)


def test_nothing_is_left_of_a_pod_when_a_test_fails() -> None:
    class Failure(Exception):
        pass

    made: list[Pod] = []
    running: list[int] = []

    def fail() -> None:
        with Pod(vm=True, resolv_conf="") as pod:
            made.append(pod)
            running.append(pod.listen("app", tcp=[80], uid=1000, gid=1000).pid)
            running.append(pod.start(["sleep", "1000"], 1000, 1000).pid)
            assert set(left_behind()) >= {pod.name, pod.client.name}
            raise Failure

    with pytest.raises(Failure):
        fail()
    (pod,) = made
    assert pod.vm
    assert not {pod.name, pod.client.name, pod.vm.name} & set(left_behind())
    assert not pod.directory.exists()
    deadline = time.monotonic() + 5  # a listener ends as soon as it sees that its helper has ended
    while alive := [pid for pid in running if os.path.exists(f"/proc/{pid}")]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.01)


@each_backend
@pytest.mark.parametrize(
    "title",
    ["TPROXY, DNS and invalid packets", "a virtual machine, some destinations", "without one interface"],
)
def test_after_cleanup_nothing_is_captured(title: str, backend: str) -> None:
    scenario = scenario_of(title)
    rows = [
        "client > pod:8080 app",
        "app > world:80 world",
        "app > pod:8080 app",
        "client > pod-lo1:8080 app",
    ]
    rows += ["app > world:53/udp world", "0:1337 > pod:8080 app", "client > pod:8080/fin+ack reset"]
    direct = replace(scenario, rows=[read_row(row) for row in rows])
    with pod_of(direct) as pod:
        apply(pod, scenario, backend)
        done = pod.tool("cleanup")
        assert done.code == 0, done.err
        check(pod, direct.rows)


def ipv6_facts(pod: Pod) -> list[str]:
    """Return what there is of IPv6 beside rules."""
    return [
        pod.run(["ip", "-6", *words.split()]).stdout for words in ("address", "rule", "route show table all")
    ]


@each_backend
def test_ipv6_that_is_off_is_not_touched(backend: str) -> None:
    scenario = scenario_of("IPv6 is there but off")
    with pod_of(scenario) as pod:
        before = ipv6_facts(pod)
        apply(pod, scenario, backend)
        assert ipv6_facts(pod) == before
        assert pod.save("legacy", "ipv6") == ""
        assert "-A" not in pod.save("nft", "ipv6")


@each_backend
@pytest.mark.parametrize(
    "title", ["DNS, the agent asks from the port that the application has asked from", "all DNS"]
)
def test_queries_of_the_agent_and_their_answers_are_one_connection(title: str, backend: str) -> None:
    """The zone of the answers does not change where they go, but without it they are not seen as answers."""
    if not os.path.exists("/proc/net/nf_conntrack"):
        pytest.skip("the kernel does not show its connections (CONFIG_NF_CONNTRACK_PROCFS)")
    scenario = scenario_of(title)
    with pod_of(scenario) as pod:
        apply(pod, scenario, backend)
        for version in (4, 6):
            assert pod.query(resolve("dns", version), 53, uid=1337, gid=1337).arrival
        table = pod.run(["cat", "/proc/net/nf_conntrack"]).stdout
        own = [line for line in table.splitlines() if " udp " in line and "zone=1" in line.split()]
        assert len(own) == 2
        assert not [line for line in own if "UNREPLIED" in line]


def test_the_table_has_every_setting_that_decides_about_traffic() -> None:
    used = {
        name
        for scenario in SCENARIOS
        for name in (
            *scenario.settings,
            *scenario.variables,
            *(["--dual-stack"] if "+6" in scenario.families else []),
            *(flag for flags, _ in BACKENDS.values() for flag in flags),
        )
    }
    # What the first says decides nothing; what the second does is in test_neighbours.py.
    other = {"rule_comments", "dns_single_zone"}
    missing = [
        setting.flag
        for setting in SETTINGS
        if (setting.field in Config._fields or setting.field in ("dual_stack", "proxy_user"))
        and setting.field not in other
        and not used & {setting.flag, f"-{setting.short}", *setting.aliases}
    ]
    assert missing == []

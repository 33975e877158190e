"""What tests share. Each module is about one thing.

"SPEC" in tests is the project's contract; its written-down form in the tree is oracle, and tests/by_hand.

What should be there, said independently of the product:

- oracle, oracle_settings: the rules that the contract demands for settings, as iptables-save prints them
- saved: what iptables-save prints, by table and chain
- kernel_structures: an entry of a table, by the kernel's own declarations
- interpreter: packets that may make a difference to rules, and what becomes of one at a hook
- restore: what iptables-restore does with a script, and what iptables-save prints afterwards
- golden, golden_cases: the files in tests/golden, and the configurations that they are for
- deploy: the parts of deploy/ that the tool prints
- messages: the messages in the source code, for docs/troubleshooting.md

What tests are made of:

- strategies: Hypothesis strategies for settings, environments and what follows from them
- nft_fixtures, nft_meaning: rules of nftables of every kind, what versions of nft print, and what they mean
- configuring, texts, flags: command lines, variables and values, and what they become
- rulesets: settings that make rules of all sorts, and their rules
- tables, planning: live tables with owned and foreign rules, and what is wanted instead
- nft_printed: matches and targets as text for nft, and as nft prints them
- probes: planned probes and results of them, without a machine
- manifests: manifests of pods and workloads: plain, odd and generated
- pods, kubernetes: what a manifest means, and whether Kubernetes takes it
- linting, lint_cases_of_pods, lint_cases_of_values: manifests of which pod lint has something to say
- scenarios: settings of which the traffic is tested, and where each connection must arrive
- traffic: the table of connections in tests/kernel/traffic.txt, and making them
- pages: the commands and examples on the pages of the documentation

Where tests run:

- netns, netns_helper: network namespaces, pods, real connections; the helper runs inside
- arrivals: a connection as who made it, and as who got it, saw it
- fixtures: what the conftest.py of each folder of tests in namespaces offers
- scratch: tables of another program and of istio-iptables in a namespace, and what the kernel has of them
- sandbox: a file system and a systemd of its own for the commands of the documentation
- applying: the iptables backends, settings that make rules of all sorts, and the rules in a namespace
- native: the same for native nftables
- legacy_entries: a table of legacy iptables, read from the kernel past every library
- netlink: namespaces in which functions of the netlink client are called
- validating: the validation in a pod, and the table that it prints
- agreeing: settings and locations for the tests that compare backends
- foreign: rules of another program, which keep their places and counters
- failing: how a run is made to fail, and what has to be as before afterwards
- doctor: what `istio-iptables doctor` says in a namespace, and whether a run then fails
- command: the command line as a process without privileges
- dnsmasq: a real DNS server
- browser: a headless Chromium, and the pages that it shows
- picturing: subjects for tests of pictures, and what is in the text of a picture
- cni, cni_runtime: calls of the CNI plugin, and a runtime that keeps to the CNI specification
- cni_node: a node with the plugin on it, and the process that keeps it there
- cni_lists, cni_kills: network configurations as nodes have them, and a writer that is killed
- kubernetes_api, broken_pods: a small server for kubernetes' client, and pods without their rules
- containerd, cri: Debian's containerd in namespaces of its own, and the calls that kubelet makes
- imports: which imports the start-up path avoids
- skipping: mark and skip the tests of a folder, and say how many were skipped
"""

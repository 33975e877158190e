"""What a rule is: typed data (matches, targets, chains, tables), and what can be computed with it alone."""

#: The name of this program on a command line, and in rules. (In the prose of messages it is spelled out.)
PROGRAM = "istio-iptables"

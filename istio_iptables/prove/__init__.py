"""prove: what rules do with all packets at once, held against what the settings promise.

- space: which packets there are; outcomes: what becomes of each, by the interpreter over regions
- intent: what the settings promise, apart from how rules do it; open_ends: where Istio's rules do otherwise
- bound: where they do otherwise since a socket is bound to an interface
- terms, words, clause: what both are written in: conditions, texts, and one sentence
- translated: what a verdict of nat says of one packet that keeps its address or its port
- compare, same: two readings of the same packets, and a packet for every difference
- proof: the properties that clauses have, proved or refuted; ways: for the networks and packets of settings
- dead, runs: rules that no packet reaches
- example: one packet of a region; traced: that packet as `trace` has it
- subject: the rules that are judged; after: those that a plan leads to
- found, text, document: what was found, for people and for programs
"""

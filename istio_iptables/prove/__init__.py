"""prove: what rules do with all packets at once, held against what the settings promise.

- space: which packets there are; outcomes: what becomes of each, by the interpreter over regions
- intent: what the settings promise, apart from how rules do it
- ways, proof: whether rules keep it; compare, same: two readings of the same packets
- dead, runs: rules that no packet reaches
- example: one packet of a region; traced: that packet as `trace` has it
- subject: the rules that are judged; after: those that a plan leads to
- found, text, document: what was found, for people and for programs
"""

"""prove: what rules do with all packets at once, held against what the settings promise.

- space: which packets there are; outcomes: what becomes of each, by the interpreter over regions
- intent: what the settings promise, apart from how rules do it
- compare: two readings of the same packets, and a packet for every difference
- example: one packet of a region, to be traced
"""

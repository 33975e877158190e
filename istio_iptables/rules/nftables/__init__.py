"""nftables: the rules of native nftables as typed data, made from a Ruleset.

The policy makes tables of iptables, a set of them for each family. Here they become three tables of family
inet: both families in one, and each list a set, with the same verdict for every packet.
Nothing here knows how nft(8) writes or prints a rule: see formats/nft.py and formats/nft_json.py.
"""

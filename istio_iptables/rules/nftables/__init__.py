"""nftables: the rules as native nftables has them, typed data that is made from a Ruleset.

The policy speaks of iptables' tables, one set for each family. Here they become three tables of family
inet (SPEC section 4): both families in one, and each list a set, with the same verdict for every packet.
Nothing here knows how nft(8) writes or prints a rule: see formats/nft.py and formats/nft_json.py.
"""

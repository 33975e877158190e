"""netlink(7): messages, addresses and routes, the whole network of a namespace, and nftables' tables."""

"""netlink(7): messages, addresses, routes, and the list of nftables tables."""

"""interpreter: what the kernel does with a packet: the one place that knows what a match or a target means.

- condition: what a match is, whichever tool wrote it
- packet: a packet where a hook has it; action: what a rule does with it
- program: rules of all backends in one form, and at which hook and priority each chain is
- iptables, nft_rules, nft_expressions: make a program of rules
- iptables_options, iptables_matches, iptables_sets, iptables_targets: what options of iptables mean
- conntrack, addresses, protocols: what matches on a connection, types of addresses and names mean
- known: what is known besides the packet
- nft_statements and the modules below it (nft_nat, nft_marks, nft_maps, nft_fields, nft_fib, nft_operands,
  nft_values): what the statements of nf_tables mean; nft_words writes them
- algebra: how conditions divide packets and actions change them: for one packet, or for sets of packets
- walk: goes through chains and hooks in the kernel's order, over any algebra
- routing: the addresses, routing rules and routes of a namespace (route); completed assumes what is missing
- ip_rule, ip_names: what rules of ip-rule(8) mean, and what numbers of routing are called
- route_lookup, route_table, source_address: the kernel's choice of a route and of a source address;
  destinations: for all destinations at once; origins: which sources are taken (reverse path filtering)
"""

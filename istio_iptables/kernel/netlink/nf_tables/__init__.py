"""nf_tables: the tables of native mode, written and read by netlink: see edit.py and read.py.

The bytes are those that nft(8) sends for the script which formats/nft writes, so that nft lists the rules as
they are printed for people. What nft has written itself, or another program, is read only if it has the form
that this tool gives to the same rule; everything else is left to nft, which knows all that there is.

Numbers are those of linux/netfilter/nf_tables.h; attributes are called by the end of their
names: NFTA_CMP_SREG is CMP_SREG.
"""

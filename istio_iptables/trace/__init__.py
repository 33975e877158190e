"""trace: the way of one packet, as people and programs read it.

- packet: the packet that was asked about, with what was not given filled in
- world: the namespace that it goes through: what settings mean, what is in the kernel, or what dumps say
- steps: what the interpreter did on the way, as data; text, document: for people, and for programs
- follow: what the proxy does with what it gets, hop by hop
"""

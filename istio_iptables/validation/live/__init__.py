"""live: the part of validation that makes connections, and asks the kernel where they went."""

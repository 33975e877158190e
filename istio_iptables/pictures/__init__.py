"""Pictures of the way of packets: one model, several writers.

- words: conditions and actions in words
- fold: the rules of a chain as rows: a list of members is one row, both families are one row
- model: what is in a picture: hooks, tables, chains, rows, who sends and receives, edges
- make: a picture of a namespace, from its program (interpreter/program.py) and its proxy
- subject: what a picture is of: the rules that settings mean, or those in the kernel
- way: what of a picture a packet meets, from a trace; asked: the packet that is asked about
- examples: connections that show what settings do
- svg (with layout, measure and style), mermaid and dot (with graph), report: the writers; draw: which of them
"""

"""Pictures of the way of packets: one model, several writers.

- words: conditions and actions in words
- fold: the rules of a chain as rows: a list of members is one row, both families are one row
- model: what is in a picture: hooks, tables, chains, rows, who sends and receives, edges
- make: a picture of a namespace, from its program (interpreter/program.py) and its proxy
- way: what of a picture a packet meets, from a trace
- examples: connections that show what settings do
- mermaid, dot, svg (with layout and measure), html: the writers
"""

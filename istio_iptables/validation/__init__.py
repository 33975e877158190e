"""validation: does it work? Real connections prove redirection.

`model` has the records: a Probe is one connection, a Result is what it showed. `plan` chooses the probes,
`trace` follows a connection's first packet through the rules, `live/` makes the connections, `verdict`
decides what each one showed, and `report` writes the results. Everything but `live/` only computes.
"""

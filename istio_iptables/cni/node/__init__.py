"""node: the plugin on a node: put into its configuration and kept there, its files, and repair of pods.

`listing` and `positions` compute and touch nothing. `folder` is what the machine has; `placement` puts the
entry there in one of three ways, and `tree` the plugin's own files. `agent` does both for as long as it runs.
"""

"""status: what is in place: the settings that rules mean, what each rule has counted and why it is there.

Rules are the only input: no settings are known beforehand. `settings_of` reads settings back from them,
`report` puts together what an operator asks about a network namespace, `text` and `document` write it. All of
it only computes: kernel/machine.py reads the kernel, and cli/status_handler.py calls both.
"""

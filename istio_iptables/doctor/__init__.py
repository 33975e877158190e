"""doctor: what makes a run with these settings fail here, found without changing anything.

`live/` reads the facts from this machine, `checks/` decides what each means: functions from facts to an
Answer. `examination.py` has the table of the checks, in the order of the report, and `report.py` writes it.
A check that cannot be made is a warning that says why; the others go on.
"""

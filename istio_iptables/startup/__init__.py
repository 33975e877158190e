"""What keeps the start cheap: a plain run is a short process, in which imports are a large cost.

With all of these a default run takes two thirds of the time that it took with the first six, and that was 26
ms of processor time instead of 70. Each saving was measured by undoing that one alone (Debian 12, Python
3.11, two x86-64 cores, medians):

    Record instead of dataclasses             29 ms    record.py
    plain calls without Typer                 32 ms    settings/go_flags.py; Typer only completes
    no logging package                         7 ms    cli/log.py
    the C halves of socket, signal, hashlib  5-6 ms    c_modules.py
    `TYPE_CHECKING = False`, no `typing`     4.4 ms    every module that a plain call imports
    no garbage collection                    3.8 ms    __main__.py; the collector would scan all modules while
                                                       they are imported, and again when the interpreter exits
                                                       (measured with a dry run)
    ctypes' half in C, no python-iptables      8 ms    c_calls.py (an apply through libiptc)
    no end of the interpreter                  2 ms    tools/launcher
    a netlink client instead of pyroute2     100 ms    kernel/netlink (the import alone)

The savings overlap, since expensive packages import the same modules. Besides, no module on this path
imports `re`, `enum`, `functools` or `json` (milliseconds each, with what they import), and PyYAML is imported
only where a setting needs it. tests/unit/test_startup.py lists the modules that a plain call must not import.
"""

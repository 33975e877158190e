"""faults: thousands of system calls fail, or end their process, one a run (`make faults`)."""

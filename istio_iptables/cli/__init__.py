"""What is asked on the command line: one run, from the arguments to the exit code."""

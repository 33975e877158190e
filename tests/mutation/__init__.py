"""mutation: does a unit test fail where the code is wrong? `make mutants` changes it a little, and counts.

mutmut makes the mutants (pyproject.toml has its settings) and runs each with the tests of tests/unit that
come to the function. What it leaves open is here: a sample of each package, and a report. docs/testing.md has
the results, and the mutants that no test can tell from the code.
"""

"""checks: what facts mean for a run, subject by subject. Functions from facts to an Answer, on any system."""

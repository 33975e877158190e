"""What a rule is: typed data (matches, targets, chains, tables), and what can be computed with it alone."""

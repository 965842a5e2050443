"""The flow: registry of tests, regression, lint, coverage, testplan, mutation, proofs."""

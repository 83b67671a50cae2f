"""Everything the project promises, as sentences that run."""

"""The director: turns a revision of the source into signed desired state, and records what clients report."""

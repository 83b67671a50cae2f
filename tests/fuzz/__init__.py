"""Input that nobody thought of, against every parser: see README.md beside this."""

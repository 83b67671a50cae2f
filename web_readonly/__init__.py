"""The read-only dashboard over what the director has recorded."""

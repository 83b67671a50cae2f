"""The director's commands, one module per subject; ``reconciler.cli`` puts them together."""

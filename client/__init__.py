"""The client: follows the director's desired state on one machine."""

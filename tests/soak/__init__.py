"""Twenty real minutes of a director and hundreds of real client connections: nothing may grow."""

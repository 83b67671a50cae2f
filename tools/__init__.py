"""Programs that develop the project; none of them is installed with it."""

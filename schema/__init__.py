"""The words that the director, its clients and the dashboard share."""

"""From scores to one node."""

"""How good is each node."""

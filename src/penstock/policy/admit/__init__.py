"""Accept or refuse."""

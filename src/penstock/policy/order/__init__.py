"""Which waiting request goes first."""

"""What happened, in numbers, derived in one place from events and actions. Pure."""

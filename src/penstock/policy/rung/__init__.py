"""What may be tried for a request that waiting does not serve."""

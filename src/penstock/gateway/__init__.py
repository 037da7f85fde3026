"""The live data plane: sockets and the clock around the pure core."""

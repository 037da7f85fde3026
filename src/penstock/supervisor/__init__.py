"""`penstock up`: the services of one machine as processes, started, watched and stopped together."""

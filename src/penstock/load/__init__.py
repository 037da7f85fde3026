"""The load generator: open-loop arrivals with exact timestamps against any OpenAI-compatible server."""

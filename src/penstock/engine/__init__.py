"""The batching model of an engine, and the embedded engine that serves it in real time."""

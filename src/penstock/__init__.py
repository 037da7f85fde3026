"""Penstock: flow control for LLM engines."""

__version__ = "0.1.0"

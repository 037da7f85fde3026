"""Bytes <-> facts: what callers, engines and metric endpoints say. Pure: no I/O, no clock, no state outside an object."""

"""Thin bridges from simulation libraries to the publisher: one module per library, imported by name.

Each says what its library knows of who calls next. None waits for the daemon, and none lets an error of its own
reach the simulation.
"""

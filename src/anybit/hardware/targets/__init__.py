"""Machines, each described in one file."""

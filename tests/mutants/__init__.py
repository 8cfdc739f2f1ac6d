"""Faults that are put into the course on purpose, to prove that something goes red."""

"""Staff: runs the course, and writes what is generated from it."""

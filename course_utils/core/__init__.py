"""Staff: what every room needs and no notebook opens."""

"""Every test run, of unit tests and of notebooks alike, goes through these plugins."""

pytest_plugins = ["tests.strict_nbval"]

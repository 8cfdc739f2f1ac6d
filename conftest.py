"""Every test run, of unit tests and of notebooks alike, goes through these plugins, on one closed, small machine."""

import os

os.environ["COURSE_PROFILE"] = "cpu"
os.environ.pop("COURSE_MODEL", None)  # the stored outputs are those of the default model
os.environ["HF_HUB_OFFLINE"] = "1"  # before any library is imported: it is read once

pytest_plugins = ["tests.notebooks.strict_nbval"]

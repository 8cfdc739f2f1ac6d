"""Every test run, of unit tests and of notebooks alike, goes through these plugins, on one closed, small machine."""

import os

os.environ["COURSE_PROFILE"] = "cpu"
os.environ.pop("COURSE_MODEL", None)  # the stored outputs are those of the default model
os.environ["HF_HUB_OFFLINE"] = "1"  # before any library is imported: it is read once
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # processes of several threads each would wait for each other

pytest_plugins = ["tests.notebooks.strict_nbval"]

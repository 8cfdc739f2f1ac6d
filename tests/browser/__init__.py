"""Checks in a real browser: the site, and the lessons in JupyterLab. A maintainer runs them; `make test` does not."""

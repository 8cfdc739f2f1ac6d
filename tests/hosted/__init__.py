"""Does the course run where others installed the packages? `make hosted` asks it in fresh environments.

`images/` has what two hosted notebook services bring, `reports/` what was found; `make test` reads both.
"""

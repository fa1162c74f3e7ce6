"""Production code of `envd.core` and `envd.node` in one process, under virtual time and faults.

Everything that happens follows from one seed; see `python -m chaos.sim --help`.
"""

"""envd, a distributed daemon that keeps environment variables."""

__version__ = "0.1.0"

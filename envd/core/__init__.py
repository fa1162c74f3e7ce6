"""The pure heart of envd: standard library only, no clock, no randomness, no I/O."""

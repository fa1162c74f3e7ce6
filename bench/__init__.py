"""Measurements; `make bench` runs them."""

import os

# Load generators are forked from a process that uses gRPC, but exec at once: nothing to guard.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

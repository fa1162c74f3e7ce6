"""Many nodes under faults: a simulator that replays from a seed, and what checks its runs."""

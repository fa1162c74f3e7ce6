"""Real `envd` processes under real faults: killed, stopped, cut off, slowed, filled, wiped.

Clients write all the while and keep what they were told. Afterwards every node must hold every
acknowledged write, and all nodes must answer alike; see `python -m chaos.live --help`.
"""

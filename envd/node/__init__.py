"""The node: what it does with requests, written against ports alone."""

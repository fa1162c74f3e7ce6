"""The cases of the conformance kit, a module for each group; `envd.testing.conformance` has all."""

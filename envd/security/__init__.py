"""Sealing and identities."""

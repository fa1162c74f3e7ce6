"""Bytes and documents to core types and back: stored records, the public API, JSON."""

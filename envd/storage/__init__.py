"""The journal and the LMDB state behind the Store port; nothing else knows the engine."""

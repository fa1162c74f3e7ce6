"""How programs reach a node: the Unix socket for local ones, gRPC for all."""

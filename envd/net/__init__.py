"""The ways in from outside: gRPC, HTTP and the Unix socket, thin shells around `node.api`."""

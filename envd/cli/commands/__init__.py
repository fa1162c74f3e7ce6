"""The commands, one module each or a small group; `envd.cli.table` names them."""

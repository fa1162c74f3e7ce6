"""`envctl`, the command line.

`main` finds the command in `table` and imports that command's module only, so that a call
takes tens of milliseconds. A command is a `grammar.Command`: its words and flags, what its
`--help` teaches, and a function from an `Invocation` to an exit code. Everything outside the
process is reached through `world.World`.
"""

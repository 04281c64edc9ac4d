"""What every room may use: errors and the command line, help, files, params, the version of the code.

Nothing that changes a number may come in: no DVC stage depends on this room. It imports no other room.
"""

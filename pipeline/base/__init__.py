"""Code for every room: errors and the command line, help, files, params, the version of the code.

Only the stage `check` depends on a file of this room, so code that changes a number must not be here. This room imports
no other room.
"""

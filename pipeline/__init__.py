"""Car or truck? The lecture's three representations of an image, from download to packaged model."""

import signal
import sys

# `python -m pipeline...` imports torch and MLflow for seconds, and Ctrl-C meanwhile would be a page of traceback. So
# this import, alone of all, does something: until `run_as_command` takes over, Ctrl-C ends the process at once. While
# Python looks for the module of `-m`, and only then, argv[0] is this.
if sys.argv[0] == "-m":
    signal.signal(signal.SIGINT, signal.SIG_DFL)

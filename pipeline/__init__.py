"""Car or truck? The lecture's three representations of an image, from the download to the packaged model."""

import signal
import sys

# `python -m pipeline...` imports torch and MLflow, which takes seconds. Ctrl-C during that time would print a page of
# traceback. So this import has an effect, unlike all others: Ctrl-C ends the process at once until `run_as_command`
# takes over. argv[0] is "-m" only while Python looks for the module of `-m`.
if sys.argv[0] == "-m":
    signal.signal(signal.SIGINT, signal.SIG_DFL)

"""Errors that speak to the user, and the one place where they become a line and an exit code."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable


class PipelineError(Exception):
    """Something the user can mend: the message says what was wrong, where, and what to do. No traceback is shown."""


def run_as_command(main: Callable[[], None]) -> None:
    """Run `main` as a program: exit 1 with one line per problem on `PipelineError`, 130 on Ctrl-C.

    Any other exception keeps its traceback: that is a bug of ours.
    """
    if "DVC_ROOT" in os.environ:
        _end_with_parent()
    try:
        main()
    except PipelineError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _end_with_parent() -> None:
    """Have Linux end this process when its parent ends: a killed `dvc repro` leaves no training behind.

    An orphan would write into folders that the next `dvc repro` works in.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)

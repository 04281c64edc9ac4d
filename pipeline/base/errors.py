"""Errors that speak to the user, and the one place where they become a line and an exit code."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable

import psutil

from pipeline.base.help import stage_help


class PipelineError(Exception):
    """Something the user can mend: the message says what was wrong, where, and what to do. No traceback is shown."""


class NotANumber(PipelineError):
    """The loss became NaN or infinite, so the training stopped."""


def run_as_command(main: Callable[[], None]) -> None:
    """Run `main` as a program: exit 1 with one line per problem on `PipelineError`, 130 on Ctrl-C.

    Any other exception keeps its traceback: it is a bug of ours.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.argv[1:] in (["--help"], ["-h"]) and (text := stage_help()):
        print(text)
        return
    if "DVC_ROOT" in os.environ:
        _end_with_dvc()
    try:
        main()
    except PipelineError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _end_with_dvc() -> None:
    """End this process when the `dvc` that started it ends: a killed `dvc repro` leaves no training behind.

    An orphan would write into folders that the next `dvc repro` works in. Some shells stay between the two and
    outlive a killed DVC, so Linux's parent-death signal is not enough.
    """
    if sys.platform == "linux":
        shells = ("sh", "dash", "bash", "zsh", "ksh", "fish")
        dvc = next((process for process in psutil.Process().parents() if process.name() not in shells), None)
        if dvc is None:  # DVC ended already, or runs in another container
            return
        handle = os.pidfd_open(dvc.pid)

        def wait_and_end() -> None:
            select.select([handle], [], [])  # readable once the process has ended
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=wait_and_end, daemon=True, name="end with dvc").start()

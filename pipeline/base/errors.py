"""Errors for the user, and the one place that turns them into printed lines and an exit code."""

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
    """An error that the user can fix. Its message says what is wrong, where, and what to do. No traceback is shown."""


class NotANumber(PipelineError):
    """The loss or a weight became NaN or infinite, so the training stopped."""


def run_as_command(main: Callable[[], None]) -> None:
    """Run `main` as a program. With `--help` alone, a stage prints its help instead.

    A `PipelineError` prints one line per problem and exits with 1. Ctrl-C exits with 130. Any other exception is a bug
    of this code and keeps its traceback.
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
    """End this process when the `dvc` that started it ends, so that a killed `dvc repro` leaves no training behind.

    A training left behind would write into folders that the next `dvc repro` uses. Linux's parent-death signal is not
    enough: some shells stay between DVC and this process, and outlive a killed DVC.
    """
    if sys.platform == "linux":
        shells = ("sh", "dash", "bash", "zsh", "ksh", "fish")
        dvc = next((process for process in psutil.Process().parents() if process.name() not in shells), None)
        if dvc is None:  # DVC has ended already, or runs in another container
            return
        handle = os.pidfd_open(dvc.pid)

        def wait_and_end() -> None:
            select.select([handle], [], [])  # readable once the process has ended
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=wait_and_end, daemon=True, name="end with dvc").start()

"""No orphans: a supervised process is told by the kernel when its supervisor is gone, even by SIGKILL."""

from __future__ import annotations

import os
import signal
import sys

VARIABLE = "PENSTOCK_SUPERVISOR"
"""Holds the supervisor's process id in the environment of its children."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def fasten() -> None:
    """In a supervised process: ask for SIGTERM when the supervisor dies. Elsewhere than on Linux this does nothing."""
    supervisor = os.environ.pop(VARIABLE, None)
    if supervisor is None or not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if str(os.getppid()) != supervisor:
        # It died before the kernel had been asked.
        sys.exit(1)

"""A process without what only Unix has; Windows has none of these modules and functions.

`python -m pytest -p tests.without_unix tests/training`, or `import tests.without_unix` before
anything else. `os.fork`, `uname` and `getuid` stay, without which libraries for Linux do not start.
"""

import os
import signal
import sys
from typing import Any

_NEED_RAY = {"home", "ray_cluster"}  # fixtures
MODULES = ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog")
_OS = (
    *("forkpty", "sysconf", "pathconf", "confstr", "statvfs"),
    *("getgid", "getegid", "getpgid", "getpgrp", "getsid", "setsid"),
    *("killpg", "mkfifo", "getloadavg", "sched_getaffinity", "fchmod", "chown", "nice"),
)
_SIGNAL = (
    *("SIGHUP", "SIGUSR1", "SIGALRM", "pthread_kill", "pthread_sigmask"),
    *("alarm", "setitimer", "sigwait"),
)

for name in MODULES:
    sys.modules[name] = None  # type: ignore[assignment]  # `import` then raises ImportError
for module, names in ((os, _OS), (signal, _SIGNAL)):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Leave out tests that need a cluster of Ray, which is refused."""
    items[:] = [item for item in items if not _NEED_RAY & set(getattr(item, "fixturenames", ()))]

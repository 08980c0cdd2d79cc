"""A process without what only Unix has; Windows has none of these modules and functions.

`python -m pytest -p tests.without_unix tests/training`, or `import tests.without_unix` before
anything else. `os.fork`, `uname` and `getuid` stay, without which libraries for Linux do not start.
"""

import os
import signal
import sys

MODULES = ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog")
_OS = (
    *("forkpty", "sysconf", "pathconf", "confstr", "statvfs"),
    *("getgid", "getegid", "getpgid", "getpgrp", "getsid", "setsid"),
    *("killpg", "mkfifo", "getloadavg", "sched_getaffinity", "fchmod", "chown", "nice"),
)
_SIGNAL = (
    *("SIGHUP", "SIGKILL", "SIGUSR1", "SIGALRM", "pthread_kill", "pthread_sigmask"),
    *("alarm", "setitimer", "sigwait"),
)

for name in MODULES:
    sys.modules[name] = None  # type: ignore[assignment]  # `import` then raises ImportError
for module, names in ((os, _OS), (signal, _SIGNAL)):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)

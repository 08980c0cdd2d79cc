"""Ray on this machine: what it needs, how it is kept from signals, and why it has not started.

A start that fails takes half a minute and reports a timeout. So what is known to fail is refused
before it, and of other failures the reason is looked up in Ray's logs.
"""

import atexit
import errno
import logging
import math
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
import ray._private.services
import ray._private.utils
import ray._private.worker
from ray._common.network_utils import get_localhost_ip
from ray._common.utils import get_default_ray_temp_dir, get_system_memory
from ray.job_config import JobConfig

import mgc_ray
from mgc_ray import RequestError
from mgc_ray.data.files import nearest_that_exists, try_to_write
from mgc_ray.terminal.command import console

try:
    import pwd
    import resource
except ImportError:  # Windows, where check_address refuses
    pwd, resource = None, None  # type: ignore[assignment]

_SHARED_MEMORY = Path("/dev/shm")
_LONGEST_SOCKET = 107  # bytes of a Unix socket's path
_SESSION = "session_2026-01-01_00-00-00_000000_"  # and the number of the process
_OWN_MEMORY = 4 * 2**30  # bytes that a process maps beside Ray's objects, about
_OBJECTS = 0.3  # of the memory are for Ray's objects
_THREADS, _THREADS_PER_CPU = 150, 25  # of all of Ray's processes, about
_NOTE_SECONDS = 0.5
_BUSY = 2.0  # load per CPU from which a machine is too busy to start Ray in time


def start_ray() -> None:
    """Start Ray here; RequestError with the cause and the remedy where that fails."""
    check_machine()
    _Process.started.clear()
    with own_signals(), _loopback_only():
        try:
            ray.init(
                "local",  # "auto" would join a cluster that happens to run here
                _node_ip_address=get_localhost_ip(),
                job_config=job_config(),
                logging_level=logging.CRITICAL,  # it reports errors by what it raises
                log_to_driver=False,
                include_dashboard=False,
            )
        except BaseException as error:
            reason = why_not_started(error)
            for process in _Process.started:
                process.terminate()
            atexit.unregister(ray._private.worker.shutdown)  # it would wait for what is not there
            if isinstance(error, Exception):  # a start that takes too long is a bare one
                raise RequestError(reason) from None
            raise
    logging.getLogger("ray").setLevel(logging.ERROR)
    _say_where_objects_are()


class _Fixed(list[str]):
    """Folders of modules, to which Ray does not add the current one."""

    def extend(self, others: Iterable[str]) -> None:
        pass


def job_config() -> JobConfig:
    """Workers take modules from where this program is and from what is installed, nowhere else.

    Ray would put the current folder first, which may hold a stranger's soxr.py.
    """
    config = JobConfig()
    config._py_driver_sys_path = _Fixed([str(Path(mgc_ray.__path__[0]).parent)])
    return config


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Inside, a Ray that is started listens on this machine's loopback address alone.

    It does where a node has that address, but replaces one that is given by that of the network.
    """
    services: Any = ray._private.services
    kept = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = kept


# ---- signals ----


@contextmanager
def own_signals() -> Iterator[None]:
    """Inside, Ray can be started, or connected to, and this process keeps its signal handlers.

    Schedulers, `timeout` and a closed terminal send a signal to all processes of a command. If
    Ray's processes ended by it, this one could neither end in order nor say how to continue. It
    ends them itself; where it is killed, the system does (PR_SET_PDEATHSIG, which Ray sets).
    """
    services: Any = ray._private.services
    utils: Any = ray._private.utils
    kept = services.ConsolePopen, utils.set_sigterm_handler
    services.ConsolePopen, utils.set_sigterm_handler = _Process, lambda handler: None
    try:
        yield
    finally:
        services.ConsolePopen, utils.set_sigterm_handler = kept


class _Process(subprocess.Popen[bytes]):
    """One of Ray's processes, in a session of its own, that is not reached by SIGTERM and SIGHUP.

    Nor are those that it starts, as they inherit what is blocked. SIGINT is blocked by Ray itself.
    """

    started: "list[_Process]" = []  # noqa: RUF012

    def __init__(self, *args: Any, preexec_fn: Callable[[], None], **options: Any) -> None:
        def prepare() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
            preexec_fn()

        options |= {"preexec_fn": prepare, "start_new_session": True}
        super().__init__(*args, **options)
        self.started.append(self)

    def terminate(self) -> None:
        """Kill it and all that it has started: nothing of theirs is needed any more.

        First the others, so that it can take note of their end; then those that it has started
        instead of them.
        """
        deadline = time.monotonic() + _NOTE_SECONDS
        while _kill_others(self.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.kill()
        self.wait()
        _kill_others(self.pid)


def _kill_others(leader: int) -> bool:
    """Kill all processes of a session but its leader; whether there were any."""
    others = _session(leader) - {leader}
    for pid in others:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(others)


def _session(leader: int) -> set[int]:
    """All processes of a session, on systems that list them."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(file.read_text().rpartition(")")[2].split()[3]) == leader:
                found.add(int(file.parent.name))
    return found


# ---- what Ray needs ----


def check_machine() -> None:
    """Raise RequestError for what Ray lacks here."""
    _check_home()
    _check_folder()
    _check_shared_memory()
    _check_loopback()
    _check_address_space()
    _check_processes()


def _check_home() -> None:
    """Ray keeps a token in the home folder, without which no other user can give it orders."""
    variables = os.environ
    if "RAY_AUTH_TOKEN" in variables or variables.get("RAY_AUTH_MODE") == "disabled":
        return
    remedy = "set HOME to a folder of your own, e.g. HOME=/tmp/mine"
    try:
        given = variables.get("RAY_AUTH_TOKEN_PATH")
        token = Path(given) if given else Path.home() / ".ray" / "auth_token"
    except RuntimeError:
        raise RequestError(
            f"Ray keeps a token in the home folder, but HOME is not set and user {os.getuid()} has "
            f"none: {remedy}"
        ) from None
    try:
        if token.exists():
            token.read_bytes()
        elif not given:
            try_to_write(nearest_that_exists(token.parent) / "mgc_ray")
    except OSError as error:
        raise RequestError(
            f"Ray must be able to read and write {token}, its token, but cannot "
            f"({error.strerror}): {remedy}"
        ) from None


def _check_folder() -> None:
    """Ray keeps logs and sockets in the folder `ray` of the folder for temporary files."""
    folder = Path(get_default_ray_temp_dir())
    set_by = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "")
    shown = f"{set_by}={folder.parent}" if set_by else str(folder.parent)
    variable = set_by or "TMPDIR"
    remedy = f"set {variable} to a folder of your own with a short path, e.g. {variable}=/tmp/mine"
    if not folder.is_absolute():
        raise RequestError(
            f"the folder for temporary files must be an absolute path, but it is {shown}: {remedy}"
        )
    in_it = f"/ray/{_SESSION}{os.getpid()}/sockets/plasma_store"
    length, most = len(os.fsencode(folder.parent)), _LONGEST_SOCKET - len(in_it)
    if length > most:
        raise RequestError(
            f"the path of the folder for temporary files must have at most {most} bytes, as that "
            f"of a socket in it has at most {_LONGEST_SOCKET}, but {shown} has {length}: {remedy}"
        )
    try:
        try_to_write(nearest_that_exists(folder) / "mgc_ray")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = f"free some space there, or {remedy}"
        raise RequestError(
            f"Ray must be able to write in {folder}, but cannot ({_why_not(folder, error)}): "
            f"{remedy}"
        ) from None


def _why_not(folder: Path, error: OSError) -> str:
    """Why a folder cannot be written: that of another user, or what the system reports."""
    place = nearest_that_exists(folder)
    owner = place.stat().st_uid
    if error.errno not in (errno.EACCES, errno.EPERM) or owner == os.getuid():
        return str(error.strerror)
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = str(owner)
    return f"{place} belongs to the user {name}, whose Ray may be running"


def _check_shared_memory() -> None:
    """Processes exchange objects there; where it is small Ray takes a folder instead."""
    if os.uname().sysname != "Linux":
        return
    try:
        try_to_write(_SHARED_MEMORY / "mgc_ray")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise RequestError(
                f"Ray's processes share memory by {_SHARED_MEMORY}, but it cannot be written "
                f"({error.strerror}): mount it (mount -t tmpfs -o mode=1777 tmpfs "
                f"{_SHARED_MEMORY}), or start the container with one"
            ) from None


def _say_where_objects_are() -> None:
    """Report where shared memory was too small."""
    node: Any = ray._private.worker._global_node
    arguments = map(str, node.all_processes["raylet"][0].process.args)
    place = next((a.partition("=")[2] for a in arguments if a.startswith("--plasma_directory")), "")
    if place and Path(place) != _SHARED_MEMORY and _SHARED_MEMORY.exists():
        status = os.statvfs(_SHARED_MEMORY)
        free = status.f_bavail * status.f_frsize / 2**20
        console.print(
            f"{_SHARED_MEMORY} has only {free:.0f} MiB free, so Ray's processes exchange objects "
            f"by files in {place}, which is slower (in Docker: --shm-size)",
            style="yellow",
            markup=False,
        )


def _check_loopback() -> None:
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            socket.create_connection(listener.getsockname(), timeout=5).close()
    except OSError as error:
        raise RequestError(
            f"Ray's processes talk by the network interface lo, but 127.0.0.1 cannot be reached "
            f"({error.strerror or error}): turn it on (ip link set lo up)"
        ) from None


def _check_address_space() -> None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    needed = _OBJECTS * get_system_memory() + _OWN_MEMORY
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise RequestError(
            f"each of Ray's processes maps all objects, so it must be allowed to map "
            f"{needed / 2**30:.0f} GiB, but the limit is {limit / 2**30:.1f} (ulimit -v): raise it "
            "(ulimit -v unlimited; with a batch system, ask for more memory)"
        )


def _check_processes() -> None:
    """A start with too few threads aborts, or hangs, at any place."""
    needed = _THREADS + _THREADS_PER_CPU * (os.cpu_count() or 1)
    free = min(_free_of_user(), _free_in_container())
    if free < needed:
        raise RequestError(
            f"Ray needs about {needed} processes and threads here, but {max(0, free)} more may be "
            f"started (ulimit -u is {_limit(resource.RLIMIT_NPROC)}; that of a container may be "
            "lower): end some, or raise the limit"
        )


def _free_of_user() -> float:
    limit, user = resource.getrlimit(resource.RLIMIT_NPROC)[0], os.getuid()
    if limit == resource.RLIM_INFINITY or user == 0:  # root has none
        return math.inf
    used = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if process.stat().st_uid == user:
                used += sum(1 for _ in (process / "task").iterdir())
    return limit - used


def _free_in_container() -> float:
    try:
        limit, used = (
            int(Path(f"/sys/fs/cgroup/pids.{n}").read_text()) for n in ("max", "current")
        )
    except (OSError, ValueError):  # there is no limit
        return math.inf
    return limit - used


# ---- why it failed ----

_CAUSES = (  # (what was raised or is in the logs, what that means and what to do)
    (
        "Resource temporarily unavailable|can't start new thread",
        "it may start no more processes and threads: end some, or raise the limit (ulimit -u is "
        "{processes}, that of a container may be lower)",
    ),
    (
        "Too many open files",
        "it may open no more files: raise the limit (ulimit -n is {files}; 1024 are enough)",
    ),
    (
        "No space left on device|Disk quota exceeded",
        "the disk of {folder} is full: free some space, or set TMPDIR to a folder on another disk",
    ),
    (
        "Cannot allocate memory|bad_alloc|MemoryError|was killed",
        "memory is short ({memory:.1f} GiB are available): end other programs, or take a machine "
        "with more",
    ),
    (
        "busy",
        "the machine is too busy, with a load of {load:.0f} on {cpus} CPUs: try again when less "
        "runs on it",
    ),
)


def why_not_started(error: BaseException) -> str:
    """Why a start has failed and what to do: from what was raised, Ray's logs, and the machine."""
    folder = get_default_ray_temp_dir()
    logs = next(Path(folder).glob(f"session_*_{os.getpid()}/logs"), None)
    signs = [str(error), *(_read(file) for file in (logs.glob("*.*") if logs else ()))]
    load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    if any(process.poll() == -signal.SIGKILL for process in _Process.started):
        signs.append("was killed")  # as the system does where memory is short
    if re.search("[Tt]imed out", str(error)) and load > _BUSY * cpus:
        signs.append("busy")
    facts = {
        "processes": _limit(resource.RLIMIT_NPROC),
        "files": _limit(resource.RLIMIT_NOFILE),
        "folder": folder,
        "memory": _free_memory() / 2**30,
        "load": load,
        "cpus": cpus,
    }
    for pattern, meaning in _CAUSES:
        if any(re.search(pattern, sign) for sign in signs):
            return f"Ray did not start on this machine, as {meaning.format(**facts)}"
    raised = next(iter(str(error).strip().splitlines()), repr(error))
    return f"Ray did not start on this machine ({raised}): its logs in {logs or folder} may say why"


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace") if file.is_file() else ""
    except OSError:
        return ""


def _limit(kind: int) -> str:
    limit = resource.getrlimit(kind)[0]
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


def _free_memory() -> int:
    """Bytes that programs can still have."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")

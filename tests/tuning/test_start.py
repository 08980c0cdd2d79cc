"""What Ray needs of a machine, and why it has not started: each cause with its own remedy."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc_ray import RequestError
from mgc_ray.tuning.start import check_machine, why_not_started
from tests.commands import process
from tests.places import mounted, without_rights

CHECK = "from mgc_ray.tuning.start import check_machine; check_machine()"
START = "from mgc_ray.tuning.start import start_ray; start_ray()"


def refusal() -> str:
    with pytest.raises(RequestError) as error:
        check_machine()
    assert "\n" not in str(error.value)
    return str(error.value)


def last_line(*command: str, code: str = CHECK, **variables: str) -> str:
    """What a process that does this prints last, which is why it has ended."""
    done = subprocess.run(
        [*command, sys.executable, "-B", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | variables,
    )
    if done.returncode and not done.stderr.startswith("Traceback"):
        pytest.skip(f"may not be tried here: {done.stderr.strip()}")
    return done.stderr.splitlines()[-1] if done.stderr else ""


def in_namespace(script: str) -> tuple[str, ...]:
    """A command with mounts of its own, which SCRIPT makes."""
    return ("unshare", "--mount", "sh", "-ec", f'{script}; exec "$@"', "sh")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home folder without a token, and no variable that replaces what is tested."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_a_usual_machine_has_all_that_ray_needs(tmp_path: Path) -> None:
    check_machine()
    assert not list((tmp_path / "home").iterdir())


# --- the home folder ---


def test_a_home_that_cannot_be_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file/me"))
    assert refusal() == (
        f"Ray must be able to read and write {tmp_path}/file/me/.ray/auth_token, its token, but "
        "cannot (Not a directory): set HOME to a folder of your own, e.g. HOME=/tmp/mine"
    )
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given, so that none is kept")
    check_machine()


def test_a_home_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mounted(tmp_path / "disk", "ro") as disk:
        monkeypatch.setenv("HOME", str(disk))
        assert "its token, but cannot (Read-only file system): set HOME to" in refusal()


@pytest.mark.slow
def test_a_home_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").chmod(0o555)
    reason = last_line(*without_rights())
    assert "its token, but cannot (Permission denied): set HOME to a folder of your own" in reason


@pytest.mark.slow
def test_a_user_without_a_home_is_refused() -> None:
    """As in a container that runs with a number as its user."""
    user = ("unshare", "--user", "--map-user=12345", "--map-group=12345")
    reason = last_line(*user, "env", "--unset=HOME")
    assert "but HOME is not set and user 12345 has none: set HOME to a folder of your" in reason


# --- the folder for temporary files ---


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_path_that_is_too_long_for_sockets_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # /ray/session_2026-01-01_00-00-00_000000_ and /sockets/plasma_store have 40 + 21 bytes
    most = 107 - 61 - len(str(os.getpid()))
    folder = "/tmp/" + "x" * (most - 5)
    monkeypatch.setenv(name, folder)
    check_machine()
    monkeypatch.setenv(name, f"{folder}x")
    assert refusal() == (
        f"the path of the folder for temporary files must have at most {most} bytes, as that of a "
        f"socket in it has at most 107, but {name}={folder}x has {most + 1}: set {name} to a "
        f"folder of your own with a short path, e.g. {name}=/tmp/mine"
    )


def test_a_relative_path_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "scratch")
    assert "must be an absolute path, but it is TMPDIR=scratch: set TMPDIR to" in refusal()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("ro", "cannot (Read-only file system): set TMPDIR to a folder of your own"),
        ("size=4k", "cannot (No space left on device): free some space there, or set TMPDIR"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused(
    monkeypatch: pytest.MonkeyPatch, options: str, reason: str
) -> None:
    place = Path(f"/tmp/mgc-{os.getpid()}")  # a short path
    try:
        with mounted(place, options):
            if options != "ro":
                (place / "filling").write_bytes(bytes(4096))
            monkeypatch.setenv("TMPDIR", str(place))
            message = refusal()
    finally:
        place.rmdir()
    assert message.startswith(f"Ray must be able to write in {place}/ray, but {reason}")


@pytest.mark.slow
def test_the_folder_of_another_user_is_refused() -> None:
    if os.geteuid():
        pytest.skip("only root can give a folder to another user")
    place = Path(f"/tmp/mgc-{os.getpid()}")
    (place / "ray").mkdir(parents=True)
    try:
        os.chown(place / "ray", 65534, -1)
        reason = last_line(*without_rights(), TMPDIR=str(place))
    finally:
        (place / "ray").rmdir()
        place.rmdir()
    assert f"({place}/ray belongs to the user nobody, whose Ray may be running): set" in reason
    assert "set TMPDIR to a folder of your own with a short path, e.g. TMPDIR=/tmp/mine" in reason


# --- memory, network, limits ---


# /dev with nothing in it but what every program needs
WITHOUT_SHARED_MEMORY = """
real={place}; mkdir "$real"; mount --bind /dev "$real"; mount -t tmpfs tmpfs /dev
for name in null zero random urandom; do
    touch "/dev/$name"; mount --bind "$real/$name" "/dev/$name"
done"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("mount -t tmpfs -o ro tmpfs /dev/shm", "cannot be written (Read-only file system): mount"),
        (WITHOUT_SHARED_MEMORY, "it cannot be written (No such file or directory): mount"),
    ],
)
def test_shared_memory_that_cannot_be_written_is_refused(
    tmp_path: Path, script: str, reason: str
) -> None:
    assert reason in last_line(*in_namespace(script.format(place=tmp_path / "real")))


@pytest.mark.slow
def test_a_network_without_loopback_is_refused() -> None:
    reason = last_line("unshare", "--net")
    assert "127.0.0.1 cannot be reached (Network is unreachable): turn it on (ip link set" in reason


@pytest.mark.slow
def test_a_process_that_may_map_too_little_is_refused() -> None:
    reason = last_line("prlimit", f"--as={4 * 2**30}")
    assert "but the limit is 4.0 (ulimit -v): raise it (ulimit -v unlimited; with a" in reason


@pytest.mark.slow
def test_a_user_who_may_start_too_few_processes_is_refused(tmp_path: Path) -> None:
    """A user other than root, who has no such limit, with only the right to read the program."""
    rights = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *rights)
    needed = 150 + 25 * (os.cpu_count() or 1)
    enough = {"HOME": "/tmp", "TMPDIR": "/tmp"}
    reason = last_line(*user, "prlimit", f"--nproc={needed // 2}", **enough)
    assert f"Ray needs about {needed} processes and threads here, but " in reason
    assert f" more may be started (ulimit -u is {needed // 2}; that of a container may" in reason


# --- what only the start shows ---


@pytest.mark.parametrize(
    ("raised", "logged", "reason"),
    [
        (
            "timed out",
            "pthread_create failed: Resource temporarily unavailable",
            "no more processes",
        ),
        ("can't start new thread", "", "it may start no more processes and threads: end some, or"),
        ("timed out", "Too many open files", "it may open no more files: raise the limit (ulimit"),
        ("[Errno 28] No space left on device: 'x'", "", "is full: free some space, or set TMPDIR"),
        ("timed out", "mmap failed with error: Cannot allocate memory", "memory is short ("),
        ("an error of no known kind", "", "(an error of no known kind): its logs in "),
    ],
)
def test_a_failed_start_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, raised: str, logged: str, reason: str
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))  # whatever else runs here
    logs = tmp_path / f"ray/session_2026-01-01_00-00-00_000000_{os.getpid()}/logs"
    logs.mkdir(parents=True)
    (logs / "raylet.err").write_text(f"some line\n{logged}\n")
    message = why_not_started(RuntimeError(f"{raised}\nand more"))
    assert message.startswith("Ray did not start on this machine")
    assert reason in message
    assert "\n" not in message


def test_a_busy_machine_is_said_to_be_busy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    message = why_not_started(Exception("The current node timed out during startup. This could"))
    assert f"too busy, with a load of 1000 on {os.cpu_count()} CPUs: try again when" in message


@pytest.mark.slow
def test_a_start_that_a_limit_ends_is_explained() -> None:
    """It takes half a minute, until Ray gives up."""
    message = last_line("prlimit", "--nofile=32", code=START)
    reason = "as it may open no more files: raise the limit (ulimit -n is 32; 1024 are enough)"
    assert message.endswith(f"Ray did not start on this machine, {reason}")


@pytest.mark.slow
def test_small_shared_memory_is_reported_and_ray_starts() -> None:
    script = in_namespace("mount -t tmpfs -o size=1m tmpfs /dev/shm")
    reason = last_line(*script, code=START)
    assert reason.startswith("/dev/shm has only 1 MiB free, so Ray's processes exchange objects by")


# --- strangers ---

LISTENING = """
import importlib, socket
from mgc_ray.tuning.start import start_ray
start_ray()
import ray
psutil = importlib.import_module("psutil")  # comes with Ray
ray.get(ray.remote(lambda: None).remote())  # so that there is a worker
own = psutil.Process()
for process in [own, *own.children(recursive=True)]:
    for connection in process.net_connections("inet"):
        if connection.status == "LISTEN" or connection.type == socket.SOCK_DGRAM:
            print(process.name(), connection.laddr.ip.removeprefix("::ffff:"), flush=True)
"""


def test_a_ray_that_is_started_here_listens_on_loopback_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTENING], capture_output=True, text=True, timeout=120
    )
    sockets = [line.rsplit(maxsplit=1) for line in done.stdout.splitlines()]
    names = {name.partition(":")[0] for name, _ in sockets}
    assert {"gcs_server", "raylet", "ray"} <= names, done.stderr
    assert {ip for _, ip in sockets} <= {"127.0.0.1", "::1"}


def test_nothing_takes_modules_from_the_current_folder(tmp_path: Path) -> None:
    planted = (
        "import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\nraise SystemExit(7)"
    )
    music = tmp_path / "music"
    music.mkdir()
    for name in ("soundfile", "soxr", "numpy", "ray", "json", "torch", "sitecustomize", "tests"):
        (music / f"{name}.py").write_text(planted)
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * 44_100)
    soundfile.write(music / "song.wav", samples, 44_100)
    process("predict", ".", "--out", "../genres.csv", cwd=music)  # also by Ray's workers
    assert "song.wav" in (tmp_path / "genres.csv").read_text()
    assert not list(music.rglob("*.ran"))

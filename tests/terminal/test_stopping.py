"""How a command is stopped by signals, with small programs instead of commands."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import termios
import time

import pytest

# prints a line when it runs, and works as long as it is not stopped
PROGRAM = """
import hashlib, sys, time
from mgc_ray.terminal import stopping
from mgc_ray.terminal.command import run
class Deaf:
    def __del__(self):
        print("running", flush=True)
        time.sleep(1)
def main(argv):
    stopping.on_stop(lambda: ": start it again")
    if sys.argv[1] != "deaf":
        print("running", flush=True)
    if sys.argv[1] == "busy":  # in C, which nothing interrupts
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
    if sys.argv[1] == "deaf":  # where Python ignores all exceptions
        Deaf()
        print("heard nothing", flush=True)
    if sys.argv[1] == "ending":
        with stopping.uninterrupted():
            time.sleep(1)
            print("whole", flush=True)
        print("more", flush=True)
    while sys.argv[1] == "talking":
        print("still running", flush=True)
        time.sleep(0.01)
    time.sleep(60)
    return 0
stopping._PATIENCE = float(sys.argv[2])
run("mgc-ray x", main)
"""


def start(kind: str = "idle", patience: float = 60.0) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, kind, str(patience)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        # this process may have been started with signals ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout
    assert process.stdout.readline() == "running\n"
    return process


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGINT, "Ctrl-C"),
        (signal.SIGTERM, "SIGTERM"),
        (signal.SIGHUP, "the end of its terminal (SIGHUP)"),
    ],
)
def test_a_signal_stops_a_command_which_says_how_to_continue(number: int, words: str) -> None:
    process = start()
    process.send_signal(number)
    assert process.communicate(timeout=10) == ("", f"stopped by {words}: start it again\n")
    assert process.returncode == 130


def test_one_request_may_come_as_two_signals() -> None:
    """`timeout` sends one to the process and one to its group, which it is in."""
    process = start()
    process.send_signal(signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.communicate(timeout=10)[1] == "stopped by SIGTERM: start it again\n"
    assert process.returncode == 130


def test_what_hangs_is_ended_after_a_while_with_how_to_continue() -> None:
    process = start("busy", 1.0)
    time.sleep(0.3)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=10)[1] == "stopped by SIGTERM: start it again\n"
    assert process.returncode == 130
    assert 0.9 < time.monotonic() - started < 5


def test_a_second_signal_ends_at_once_what_hangs() -> None:
    process = start("busy")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=10)[1] == ""
    assert process.returncode == 130


def test_a_signal_in_a_destructor_is_not_lost() -> None:
    process = start("deaf")
    process.send_signal(signal.SIGTERM)
    out, printed = process.communicate(timeout=10)
    assert out in ("", "heard nothing\n")
    assert printed == "stopped by SIGTERM: start it again\n"
    assert process.returncode == 130


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_is_ignored_from_the_start_stays_so(ignored: signal.Signals) -> None:
    """As SIGHUP by nohup, and SIGINT in the background of a script."""
    before = signal.signal(ignored, signal.SIG_IGN)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "idle", "60"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(ignored, before)
    assert process.stdout
    process.stdout.readline()
    process.send_signal(ignored)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=10)[1] == "stopped by SIGTERM: start it again\n"


def test_a_terminal_that_is_closed_ends_its_command() -> None:
    """It cannot be written to any more, which must not become an error."""
    terminal, child_end = os.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(child_end, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "talking", "60"],
        stdin=child_end,
        stdout=child_end,
        stderr=child_end,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(child_end)
    assert b"running" in os.read(terminal, 1024)
    os.close(terminal)
    assert process.wait(10) == 130


@pytest.mark.slow
def test_the_command_timeout_ends_a_command_in_order() -> None:
    if not shutil.which("timeout"):
        pytest.skip("needs the command timeout")
    done = subprocess.run(
        ["timeout", "--preserve-status", "8", sys.executable, "-c", PROGRAM, "idle", "60"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (130, "stopped by SIGTERM: start it again\n")


def test_what_must_be_done_whole_is_and_then_the_command_stops() -> None:
    process = start("ending")
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    printed = process.communicate(timeout=20)
    assert process.returncode == 130
    assert printed == ("whole\n", "stopped by SIGTERM: start it again\n")

"""What only a GPU can show: is it right there, how fast, and how many trials can share one.

    PYTHONPATH=. python tests/benchmarks/gpu.py             # on a GPU, about 7 minutes on an H100
    PYTHONPATH=. python tests/benchmarks/gpu.py --rehearse  # the same parts, tiny, on a CPU
    PYTHONPATH=. python tests/benchmarks/gpu.py --parts families waits

`make gpu-check` runs all parts. Each runs in a process of its own with a time limit of its own, so
that a crash, a hang or a broken CUDA context costs no other part. Written after each part, into
--out: gpu.json with all figures, and gpu.txt, the table that is also printed. A part is `ok`, or
not with its reason. The exit status is 0 where all are ok.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

LIMITS = {  # seconds after which a part is killed; those that matter most come first
    "machine": 30,
    "precision": 40,
    "families": 60,
    "resume": 45,
    "waits": 60,
    "thirty_epochs": 75,
    "loops": 90,
    "task_devices": 45,
    "search": 60,
    "too_large": 75,
    "sharing": 130,
    "prediction": 45,
    "encoder": 60,
    "launches": 45,
}
_REHEARSAL_LIMIT = 300  # of each part on a CPU, which others may use as well
_RESULT = "RESULT "


def run_part(name: str, limit: float, rehearse: bool) -> dict[str, Any]:
    """Run one part in a process of its own; its figures, or why there are none."""
    command = [sys.executable, "-u", __file__, "--part", name, *["--rehearse"] * rehearse]
    started, timed_out = time.monotonic(), False
    with tempfile.TemporaryFile("w+") as printed:
        # into a file, as a process that the part has left would keep a pipe open
        process = subprocess.Popen(
            command, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            timed_out = True
        _kill_session(process)
        printed.seek(0)
        lines = printed.read().splitlines()
    results = [line.removeprefix(_RESULT) for line in lines if line.startswith(_RESULT)]
    found: dict[str, Any] = json.loads(results[-1]) if results else {"ok": False}
    if timed_out:
        found |= {"ok": False, "why": f"it took longer than its limit of {limit:g} s"}
    elif not results:
        found["why"] = f"its process ended with status {process.returncode}"
    if not found["ok"]:
        found["printed"] = [line[:200] for line in lines if not line.startswith(_RESULT)][-8:]
    return found | {"seconds": round(time.monotonic() - started, 1)}


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill the part, and what it has started and left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def table(found: dict[str, dict[str, Any]]) -> str:
    """A line per part, and one per figure."""
    lines = []
    for name, figures in found.items():
        verdict = "ok" if figures["ok"] else f"NOT OK: {figures.get('why', '')}"
        lines.append(f"{name:14} {figures['seconds']:6.1f} s  {verdict}")
        shown = {k: v for k, v in figures.items() if k not in ("ok", "why", "seconds")}
        lines += [f"    {name:26} {_in_words(value)}" for name, value in shown.items()]
    return "\n".join(lines) + "\n"


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(one)}" for name, one in value.items())
    if isinstance(value, list):
        return " ".join(_in_words(one) for one in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rehearse", action="store_true", help="tiny, on a CPU")
    parser.add_argument("--parts", nargs="+", choices=LIMITS, default=list(LIMITS), metavar="PART")
    parser.add_argument("--limit", type=float, help="seconds for each part (default: its own)")
    parser.add_argument("--seconds", type=float, default=560.0, help="for all parts together")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(os.environ.get("OUT", "results/gpu-check")),
        help="folder for gpu.json and gpu.txt (default: $OUT, or results/gpu-check)",
    )
    parser.add_argument("--part", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        from _gpu_parts import figures_of

        print(_RESULT + json.dumps(figures_of(args.part, args.rehearse)), flush=True)
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + (args.seconds if not args.rehearse else float("inf"))
    found: dict[str, dict[str, Any]] = {}
    for name in args.parts:
        own = _REHEARSAL_LIMIT if args.rehearse else LIMITS[name]
        limit = min(args.limit or own, ends - time.monotonic())
        if limit > 0:
            found[name] = run_part(name, limit, args.rehearse)
        else:
            found[name] = {"ok": False, "why": "no time was left for it", "seconds": 0.0}
        print(table({name: found[name]}), end="", flush=True)
        (args.out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
        (args.out / "gpu.txt").write_text(table(found))
    bad = [name for name, figures in found.items() if not figures["ok"]]
    print(f"{len(found)} parts, not ok: {', '.join(bad) or 'none'}; figures in {args.out}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

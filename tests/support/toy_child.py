"""A child that trains nothing: a curve with a minimum at x = 3, checkpoints that are one number in a file."""

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

stop = threading.Event()
jobs: list[dict] = []
arrived = threading.Condition()


def say(**message):
    print(json.dumps(message), flush=True)


def value(x: float, step: int) -> float:
    return (x - 3.0) ** 2 / 10 + 1.0 / step


def write(claim, step):
    """A checkpoint as the real ones are: a folder that never changes, and the one before it goes."""
    target = claim / f"step-{step:06d}"
    if target.exists():
        return
    pending = claim / f".pending-{step}"
    pending.mkdir(parents=True, exist_ok=True)
    (pending / "value").write_text(str(step))
    pending.rename(target)
    for other in claim.glob("step-*"):
        if other != target:
            shutil.rmtree(other, ignore_errors=True)


def saved_steps(folder):
    checkpoints = [path.parent for path in folder.glob("claim-*/step-*/value")]
    return [int(checkpoint.name.removeprefix("step-")) for checkpoint in checkpoints]


def run(job):
    folder = Path(job["folder"]) / "checkpoints"
    claim = folder / f"claim-{job['token']:06d}"
    x = job["params"]["x"]
    folder.mkdir(parents=True, exist_ok=True)
    done = max((step for step in saved_steps(folder) if step <= job["last_step"]), default=0)
    if not job["facts"].get("baseline"):
        say(event="fact", key="baseline", value=9.0)
        # A limit comes down and never goes up again.
        for limit in (8, 4, 6):
            say(event="limit", key="memory", value=limit)
    for step in range(done + 1, job["last_step"] + 1):
        if stop.is_set():
            return say(event="stopped", step=step - 1)
        time.sleep(job.get("step_seconds", 0.0))
        with (Path(job["folder"]).parent / "steps.log").open("a") as log:
            log.write(f"{job['number']} {step}\n")
        if x == job.get("crash_at") and step == 2:
            os._exit(9)
        if x == job.get("bug_at"):
            print("Traceback of the toy", file=sys.stderr)
            return say(event="failure", failure="bug", reason="ZeroDivisionError: toy")
        for failure in ("oom", "disk", "machine", "input"):
            if x == job.get(f"{failure}_at"):
                return say(event="failure", failure=failure, reason=f"{failure} of the toy")
        if x == job.get("diverge_at"):
            return say(event="failure", failure="diverged", reason="loss is NaN at step 1")
        write(claim, step)
        say(event="progress", step=step, loss=value(x, step))
    write(claim, job["last_step"])  # also where another claim had come so far
    for other in folder.glob("claim-*"):
        if other < claim:
            shutil.rmtree(other, ignore_errors=True)
    metrics = {"train_seconds": 1.0, "eval_seconds": 0.5}
    return say(event="result", value=value(x, job["last_step"]), metrics=metrics)


def listen():
    for line in sys.stdin:
        message = json.loads(line)
        with arrived:
            if message.get("stop"):
                stop.set()
            else:
                jobs.append(message)
                arrived.notify()
    os._exit(0)


threading.Thread(target=listen, daemon=True).start()
while True:
    with arrived:
        arrived.wait_for(lambda: jobs)
        job = jobs.pop(0)
    run(job)
    stop.clear()

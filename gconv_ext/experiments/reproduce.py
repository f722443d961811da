"""Trains what a target has and its results file does not have yet, several processes at a time."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import MISSING, asdict, fields
from pathlib import Path

import torch

from ..data import ImageFiles, LabelledImages
from ..errors import InputError
from ..training.results import append_row, read_rows
from .targets import EXPERIMENTS, Target, expand

RESULTS = "results.jsonl"
UNFINISHED = "unfinished"  # folder of what is being trained; empty when all is done
_data: LabelledImages | ImageFiles  # what _start gives a process to train on


def reproduce(
    target: Target, data: LabelledImages | ImageFiles, out: Path, *, scale: float = 1, seeds: int | None = None,
    jobs: int = 1, resume: bool = False, accelerator: str = "auto",
) -> list[dict]:  # fmt: skip
    """Trains every run of a target that out/<target>/results.jsonl does not have, and appends its row.

    Args:
        target: of load_target.
        data: of the experiment's loader; data.count("train") and data.sha256() are used here.
        out: folder of results; a run's checkpoint and log are in out/<target>/unfinished/ until its row is written.
        scale, seeds: see targets.expand.
        jobs: processes, each with its share of the processor's threads.
        resume: go on with what is found in `out`.
        accelerator: see training.fit.fit.

    Returns:
        The target's rows at this scale, in the order of targets.expand.

    Raises:
        InputError: there are results and `resume` is not given, or they are of another scale or other data; jobs below 1;
            a process was killed.
        OSError: `out` cannot be written.
        KeyboardInterrupt: after Ctrl-C; call again with resume=True.
    """
    if jobs < 1:
        raise InputError(f"--jobs must be at least 1, got {jobs}")
    images = data.count("train")
    runs = expand(target, images, scale=scale, seeds=seeds)
    folder, sha256 = out / target.folder, data.sha256()
    rows = _known_rows(folder, scale, sha256, resume)
    # At a small scale settings can come to the same configuration, which is trained once.
    missing = list(dict.fromkeys(run.config for run in runs if find_row(run.config, sha256, rows) is None))
    print(f"{target.name} at scale {scale:g}: {len(runs)} runs, {len(missing)} of them to train", flush=True)
    if missing:
        (folder / UNFINISHED).mkdir(parents=True, exist_ok=True)
        about = {"target": target.folder, "scale": scale, "all_images": images}
        rows += _train(missing, target.experiment, data, folder, about, jobs, accelerator)
    found = [find_row(run.config, sha256, rows) for run in runs]
    return [row for row in found if row]  # every run has one by now


def _known_rows(folder: Path, scale: float, sha256: str, resume: bool) -> list[dict]:
    path = folder / RESULTS
    rows = read_rows(path)
    if not resume and (rows or (folder / UNFINISHED).exists()):
        raise InputError(f"{folder} has results already ({len(rows)} rows); give --resume to go on, or another --out")
    for row in rows:
        found = row.get("reproduce", {}).get("scale")
        if found != scale:
            raise InputError(f"{path} is of scale {found} and not {scale:g}; give the same --scale, or another --out")
        if row["config"]["data"] != sha256:
            raise InputError(f"{path} is of other data ({row['data']['origin']}); give the same, or another --out")
    return rows


def find_row(config, sha256: str, rows: list[dict]) -> dict | None:
    """The row of a configuration with this data.  Fields newer than a row have the defaults that it ran with."""
    defaults = {field.name: field.default for field in fields(config) if field.default is not MISSING}
    identity = asdict(config) | {"data": sha256}
    return next((row for row in rows if defaults | row["config"] == identity), None)


def _train(
    configs: list, experiment: str, data: LabelledImages | ImageFiles, folder: Path, about: dict, jobs: int,
    accelerator: str,
) -> list[dict]:  # fmt: skip
    """Appends the rows to the results file, as the runs finish; returns them."""
    started, rows = time.monotonic(), []
    threads, others = max(1, (os.cpu_count() or 1) // jobs), multiprocessing.active_children()
    pool = ProcessPoolExecutor(
        min(jobs, len(configs)), multiprocessing.get_context("spawn"), initializer=_start, initargs=(data, threads)
    )
    try:
        work = {config: folder / UNFINISHED / _work_name(config) for config in configs}
        futures = {pool.submit(_run, experiment, config, work[config], accelerator): config for config in configs}
        for future in as_completed(futures):
            config, row = futures[future], future.result()
            field = EXPERIMENTS[experiment].images
            images = getattr(config, field) if field else row["data"]["train"]
            row["reproduce"] = about | {"images": images} | row["reproduce"]
            append_row(folder / RESULTS, row)
            shutil.rmtree(work[config])
            rows.append(row)
            left = (time.monotonic() - started) / len(rows) * (len(configs) - len(rows)) / 60
            seconds = row["reproduce"]["wall_seconds"]
            print(f"  {len(rows)} of {len(configs)}: {config.name}, {seconds:.0f} s; about {left:.0f} min left", flush=True)
        (folder / UNFINISHED).rmdir()
    except BrokenProcessPool as error:
        raise InputError(
            "a process was killed, for want of memory perhaps; the same command with --resume goes on, --jobs sets how many"
        ) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command with --resume goes on from {folder}") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()).difference(others):
            process.terminate()  # idle by now, or what it has is in a checkpoint
    return rows


def _work_name(config) -> str:
    """Of the folder of a run: its name, and a digest of the whole of its configuration."""
    return f"{config.name}-{hashlib.sha256(repr(config).encode()).hexdigest()[:8]}"


def _start(data: LabelledImages | ImageFiles, threads: int) -> None:
    """In each process, once.  Ctrl-C is for the parent, which ends the processes; when the parent is killed they end too,
    or they would go on beside the command that resumes."""
    global _data
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _data = data


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(experiment: str, config, work: Path, accelerator: str) -> dict:
    """One run, its output in work/log.txt."""
    started, resumed = time.perf_counter(), (work / config.name / "last.ckpt").exists()
    work.mkdir(exist_ok=True)
    with (work / "log.txt").open("a") as log, redirect_stdout(log), redirect_stderr(log):
        row = EXPERIMENTS[experiment].load().run(config, _data, work, resume=True, accelerator=accelerator)
    return row | {"reproduce": {"wall_seconds": time.perf_counter() - started, "resumed": resumed}}

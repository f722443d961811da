"""The benchmark for GPUs, run on the CPU: all but CUDA's events and graphs."""

import contextlib
import json
import time
from types import SimpleNamespace

import pytest
import torch
from interpreter import needs_interpreter

from gconv_ext import autograd, functional
from gconv_ext.bench.cases import LayerCase
from gconv_ext.bench.gpu import cases, contenders, run, timing
from gconv_ext.bench.timing import summary
from gconv_ext.cli import main

CEILINGS = cases.Ceilings(1e9, dict.fromkeys(cases.DTYPES, 1e9))


def interleaved(records, peers, rounds, *, queued=True):
    seconds = {name: [] for name in records}
    for _ in range(2):
        for name, record in records.items():
            began = time.perf_counter()
            record.run()
            seconds[name].append((time.perf_counter() - began) / record.calls)
    return summary(seconds, peers)


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setattr(timing, "graph", timing.eager)
    monkeypatch.setattr(timing, "interleaved", interleaved)
    monkeypatch.setattr(torch, "compile", lambda call, dynamic: call)


@pytest.fixture
def compiled_only(monkeypatch):
    """Triton's interpreter is slow."""
    monkeypatch.setattr(contenders, "OURS", ["irrep", "dense"])


def measure(case, pass_="forward", dtype="float32"):
    return run.measure(cases.Setting(case, pass_, dtype), 2, CEILINGS, "cpu")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("pass_", cases.PASSES)
@pytest.mark.parametrize("case", [
    LayerCase("C4", 2, 3, 4, 2),
    LayerCase("D4", 1, 2, 4, 2, lifting=True),
    LayerCase("C4", 2, 2, 4, 2, banks=2, relax_on="input"),
])  # fmt: skip
def test_layers(case, pass_, dtype, compiled_only):
    rows = measure(case, pass_, dtype)
    ours = {"irrep", f"irrep {'channels_last' if case.lifting else 'channels_last_3d'}", "dense", "dense channels_last"}
    timed = {row["contender"]: row for row in rows if "us" in row}
    compiled = {name for name in timed if name.startswith("compiled")}
    assert set(timed) - compiled - {"escnn"} == ours | {"conv2d", "conv2d channels_last"}  # escnn where it is installed
    assert len(compiled) == 2 and sum("conv2d" in name for name in compiled) == 1
    for name, row in timed.items():
        assert row["is_peer"] == ("conv2d" in name) and row["us"] > 0 and row["rounds"] == 2 and "eager_us" not in row
        done = cases.work(case, pass_, cases.DTYPES[dtype])
        multiplied = done.irrep if "irrep" in name else done.dense
        assert row["tflops"] == pytest.approx(2 * multiplied / row["us"] / 1e6, rel=1e-2)
        assert row["speed_quartile1"] <= row["speed"] <= row["speed_quartile3"]
    best = timed[timed["irrep"]["peer"]]
    assert best["is_peer"] and best["speed"] == 1 and best["us"] == min(row["us"] for row in timed.values() if row["is_peer"])
    assert [row["contender"] for row in rows if "not_measured" in row] == ["escnn"] and not any("failed" in row for row in rows)


@needs_interpreter
def test_triton_kernels_are_contenders_and_each_family_is_timed_once(monkeypatch):
    monkeypatch.setattr(contenders, "OURS", ["triton_fused", "fused"])
    rows = measure(LayerCase("C2", 1, 1, 2, 1))
    assert {"triton_fused", "triton_fused channels_last_3d"} < {row["contender"] for row in rows if "us" in row}
    assert [row["not_measured"] for row in rows if row["contender"] == "fused"] == ["its kernels here are those of 'triton_fused'"]


def test_the_gradient_lies_as_the_result_does(monkeypatch):
    """Or it would be copied, within the time, into the format that the backward pass needs."""
    passes = {name: getattr(contenders.ops, name) for name in ("fprop", "dgrad", "wgrad")}
    maps = []
    for name, right in passes.items():
        number = 2 if name == "wgrad" else 1  # of the maps among the arguments
        monkeypatch.setattr(
            contenders.ops, name,
            lambda kernels, *arguments, right=right, number=number: maps.extend(arguments[:number]) or right(kernels, *arguments),
        )  # fmt: skip
    monkeypatch.setattr(autograd, "in_format", lambda map, format: map)
    made = contenders.layer(LayerCase("C4", 2, 3, 4, 2), "forward + backward", torch.float32, "cpu", 0)
    maps.clear()
    y, *_ = made.eager["irrep channels_last_3d"].results("forward + backward")
    assert len(maps) == 4 and all(map.is_contiguous(memory_format=torch.channels_last_3d) for map in (y, *maps))


def test_both_matrix_instructions_are_timed(compiled_only, monkeypatch):
    """wgmma and mma.sync, where there is a choice."""
    inside = []

    @contextlib.contextmanager
    def without_wgmma():
        inside.append("now")
        yield
        inside.append("before")

    monkeypatch.setattr(contenders, "_may_take_wgmma", lambda weight: True)
    monkeypatch.setattr(contenders.ops, "without_wgmma", without_wgmma)
    right = functional.group_conv2d
    calls = []

    def group_conv2d(*tensors, **options):
        calls.append(inside[-1:] == ["now"])
        return right(*tensors, **options)

    monkeypatch.setattr(functional, "group_conv2d", group_conv2d)
    rows = measure(LayerCase("C4", 2, 2, 4, 2), "forward + backward", "bfloat16")
    timed = [row["contender"] for row in rows if "us" in row]
    assert "irrep mma.sync channels_last_3d" in timed and "irrep mma.sync" not in timed
    assert len(calls) > 2 * len(inside) // 2 > 0 and sum(calls) == len(inside) // 2


def test_small_layers_are_timed_eagerly_too(compiled_only, monkeypatch):
    tiny = LayerCase("C4", 1, 1, 4, 1)
    monkeypatch.setitem(cases.CLASSES, "the papers' small layers", [tiny])
    assert all(row["eager_us"] > 0 for row in measure(tiny) if "us" in row)
    assert timing.eager(int, 7, True).calls == 21 and timing.eager(int, 7, False).calls == 7


def test_networks(monkeypatch):
    monkeypatch.setattr(contenders, "OURS", ["dense"])
    monkeypatch.setattr(timing, "_LEAST_CALLS", 1)
    rows = measure("noise_p4_cnn", "training step", "bfloat16")
    timed = {row["contender"]: row for row in rows if "us" in row}
    assert {"dense", "conv2d"} < set(timed)
    assert all(row["is_peer"] and "tflops" not in row for row in timed.values())  # ours must beat dense too


@pytest.mark.parametrize("pass_, factor", [("forward", 1.001), ("forward + backward", 1.001), ("forward", float("nan"))])
def test_what_is_wrong_is_not_timed(compiled_only, monkeypatch, pass_, factor):
    right = functional.group_conv2d

    def group_conv2d(*tensors, algorithm, **options):
        return right(*tensors, algorithm=algorithm, **options) * (factor if algorithm == "dense" else 1)

    monkeypatch.setattr(functional, "group_conv2d", group_conv2d)
    rows = measure(LayerCase("C4", 2, 2, 4, 2), pass_)
    failed = {row["contender"]: row["failed"] for row in rows if "failed" in row}
    assert set(failed) == {"dense", "dense channels_last"}
    assert all(why.startswith("AssertionError: result 0 is wrong: error") for why in failed.values())
    assert "irrep" in {row["contender"] for row in rows if "us" in row}


def test_copies_exceed_the_cache():
    case = LayerCase("C4", 2, 2, 4, 2)  # 2 · 256 numbers
    made = contenders.layer(case, "forward", torch.float32, "cpu", l2_bytes=5000)
    assert made.copies == 5 and made.copies * 2048 >= 2 * 5000
    inputs = [x for contender in (made.eager["dense"], made.eager["conv2d channels_last"]) for x, _ in contender.inputs]
    assert len({x.data_ptr() for x in inputs}) == 10


def test_precision():
    def now():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark

    before = now()
    for dtype in cases.DTYPES:
        with contenders.precision(dtype):
            assert now() == (dtype == "tf32", dtype == "tf32", True)
        assert now() == before


def test_resources_of_triton_kernels():
    gpu = SimpleNamespace(max_threads_per_multi_processor=2048, regs_per_multiprocessor=65536, shared_memory_per_multiprocessor=228 << 10)
    kernel = SimpleNamespace(hash="a", name="fprop", n_regs=128, n_spills=3, metadata=SimpleNamespace(shared=64, num_warps=4))
    other = SimpleNamespace(**vars(kernel) | {"hash": "b"})
    want = {"kernel": "fprop", "registers": 128, "spills": 3, "shared_bytes": 64, "warps": 4, "occupancy": 0.25}
    assert timing.resources([kernel, other, kernel], gpu) == [want, want]


def test_speed_is_the_best_peers_time_over_its_own(compiled_only, monkeypatch):
    def timed(records, peers, rounds, queued=True):
        return summary({name: [1e-6, 2e-6] if name == "irrep" else [4e-6, 5e-6] for name in records}, peers)

    monkeypatch.setattr(timing, "interleaved", timed)
    (row,) = [row for row in measure(LayerCase("C4", 1, 1, 4, 1)) if row["contender"] == "irrep"]
    assert row["us"] == 1.5 and row["peer"] == "conv2d"
    # The ratios of the two rounds are 1/4 and 2/5.
    assert [row["speed"], row["speed_quartile1"], row["speed_quartile3"]] == pytest.approx([1 / 0.325, 1 / 0.3625, 1 / 0.2875], rel=1e-3)


@pytest.fixture
def pretend(monkeypatch):
    """A GPU on which each setting takes 10 seconds."""
    clock = SimpleNamespace(now=0.0)

    def measure(setting, repeats, ceilings):
        clock.now += 10
        return run.not_measured([setting], "pretended")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(timing, "ceilings", lambda dtypes: CEILINGS)
    monkeypatch.setattr(run, "versions", lambda: dict.fromkeys("gpu driver cuda cudnn torch triton gconv_ext commit date".split(), "1"))
    monkeypatch.setattr(run, "measure", measure)
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: clock.now))


def test_the_budget(pretend, tmp_path):
    """The first settings that begin before it is over; the rest is written down."""
    assert run.run(tmp_path, dtypes=["bfloat16"], budget=25) == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    todo = cases.settings(["bfloat16"])
    assert [(row["case"], row["pass"], row["dtype"]) for row in found["rows"]] == [(s.name, s.pass_, s.dtype) for s in todo]
    assert [row["not_measured"] for row in found["rows"]] == ["pretended"] * 3 + ["out of time"] * (len(todo) - 3)
    assert found["ceilings"]["bandwidth"] == 1e9 and found["about"]["gpu"] == "1"
    assert (tmp_path / "bench.md").read_text().count("not measured: out of time") == len(todo) - 3


def test_a_stopped_run_leaves_what_it_measured(pretend, tmp_path, monkeypatch):
    measured = run.measure

    def stop(setting, *options):
        if setting == cases.settings(["tf32"])[1]:
            raise KeyboardInterrupt
        return measured(setting, *options)

    monkeypatch.setattr(run, "measure", stop)
    with pytest.raises(KeyboardInterrupt):
        run.run(tmp_path, dtypes=["tf32"])
    reasons = [row["not_measured"] for row in json.loads((tmp_path / "bench.json").read_text())["rows"]]
    assert reasons == ["pretended"] + ["the run was stopped"] * 43


def test_a_failure_is_in_the_exit_status(pretend, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "measure", lambda setting, *options: [run._row(setting, "irrep", failed="it is wrong")])
    (tmp_path / "ptxas.log").write_text("ptxas info    : Compiling entry function 'plain' for 'sm_80'\nptxas info    : Used 48 registers")
    assert main(["bench", "--device", "cuda", "--out", str(tmp_path), "--only", "noise_p4_cnn"]) == 1
    assert "| plain | sm_80 | 48 |" in (tmp_path / "bench.md").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("options, message", [
    ((), "needs a GPU, and PyTorch sees none"),
    (("--only", "nothing"), "no case contains 'nothing'; the cases are: C4 conv 64-64"),
    (("--threads", "2"), "--threads needs --device cpu"),
    (("--device", "cpu", "--budget", "3"), "--dtype and --budget need --device cuda"),
    (("--device", "cpu", "--dtype", "tf32"), "--dtype and --budget need --device cuda"),
])  # fmt: skip
def test_what_is_refused(options, message, tmp_path, capsys):
    assert main(["bench", "--device", "cuda", "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()

"""bench/gpu.sh with programs in its PATH that only tell how they were called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PYTHON = """\
#!/usr/bin/env bash
case "$*" in
    *get_device_capability*) [ -z "$NO_GPU" ] && echo 9.0 ;;
    *"import hypothesis"*) [ -z "$NO_PYTEST" ] ;;
    *--collect-only*) printf 'test.py::test[relaxed output-%s]\\n' 1 2 3; echo; echo "3 tests collected" ;;
    *) printf '<%s>' "$@"; echo " for $TORCH_CUDA_ARCH_LIST"; [[ -z "$FAIL" || "$*" != *$FAIL* ]] ;;
esac
"""
NPROC = "#!/usr/bin/env bash\necho 2\n"
OTHER = "#!/usr/bin/env bash\nprintf '<%s>' \"$@\"; echo; exit 0\n"


@pytest.fixture
def checkout(tmp_path):
    for folder in ("bench", "gconv_ext", "bin"):
        (tmp_path / folder).mkdir()
    shutil.copy(Path(__file__).parents[3] / "bench" / "gpu.sh", tmp_path / "bench")
    for name in ("python3", "nproc", "cmake", "ninja", "nvcc", "compute-sanitizer"):
        (tmp_path / "bin" / name).write_text({"python3": PYTHON, "nproc": NPROC}.get(name, OTHER))
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def gpu_sh(checkout, **variables):
    path = f"{checkout / 'bin'}:{os.environ['PATH']}"
    inherited = {name: value for name, value in os.environ.items() if name not in ("OUT", "PYTHON", "TORCH_CUDA_ARCH_LIST")}
    return subprocess.run(
        [checkout / "bench" / "gpu.sh"], env=inherited | {"PATH": path} | variables, capture_output=True, text=True
    )  # fmt: skip


def test_every_step(checkout):
    done = gpu_sh(checkout)
    out = checkout / "bench" / "results" / "gpu"
    assert done.returncode == 0, done.stderr
    statuses = [line.split(" after ")[0] for line in (out / "summary.txt").read_text().splitlines()]
    assert sorted(statuses) == [f"{step}: exit status 0" for step in ("bench", "build", "ptxas", "sanitizer", "tests")]
    assert statuses[0].startswith("build") and statuses[-1].startswith("bench")
    assert (out / "build.log").read_text() == "<setup.py><build_ext><--inplace> for 9.0a\n"
    assert "<--device><cuda><--out><bench/results/gpu><--budget>" in (out / "bench.log").read_text()
    assert "<-DCMAKE_CUDA_ARCHITECTURES=90a>" in (out / "ptxas.log").read_text()
    assert "<--tool><racecheck>" in (out / "sanitizer.log").read_text()
    run = (out / "tests.log").read_text()
    assert all(run.count(f"<test.py::test[relaxed output-{number}]>") == 1 for number in (1, 2, 3))
    assert (checkout / "gconv_ext" / "bench").resolve() == checkout / "bench"
    assert len(list(out.iterdir())) == 6  # and the benchmark's two


@pytest.mark.parametrize("step, text", [("build", "build_ext"), ("tests", "output-2"), ("bench", "gconv_ext.cli")])
def test_a_failing_step_stops_none_and_is_in_the_exit_status(checkout, step, text):
    done = gpu_sh(checkout, FAIL=text, OUT=str(checkout / "out"))
    summary = (checkout / "out" / "summary.txt").read_text()
    assert done.returncode == 1 and summary.count("exit status 0") == 4 and f"{step}: exit status 1" in summary


def test_missing_tools_are_named(checkout):
    """Without pytest the tests fail; without the other tools their steps are not run."""
    (checkout / "bin" / "cmake").chmod(0o644)
    (checkout / "bin" / "compute-sanitizer").unlink()
    programs = checkout / "programs"
    programs.mkdir()
    for name in ("bash", "dirname", "mkdir", "rm", "ln", "timeout", "tee", "grep"):
        (programs / name).symlink_to(shutil.which(name))
    (programs / "env").symlink_to(shutil.which("env"))
    done = subprocess.run(
        [shutil.which("bash"), checkout / "bench" / "gpu.sh"], capture_output=True, text=True,
        env={"PATH": f"{checkout / 'bin'}:{programs}", "NO_PYTEST": "1", "CUDA_HOME": str(checkout)},
    )  # fmt: skip
    summary = (checkout / "bench" / "results" / "gpu" / "summary.txt").read_text()
    assert done.returncode == 1 and "tests: exit status 1" in summary
    assert "ptxas: not run: it needs cmake, ninja and nvcc" in summary
    assert "sanitizer: not run: compute-sanitizer is not on PATH" in summary
    assert "PYTHONPATH" in (checkout / "bench" / "results" / "gpu" / "tests.log").read_text()


def test_without_a_gpu_nothing_is_run(checkout):
    done = gpu_sh(checkout, NO_GPU="1")
    assert done.returncode == 1 and "no torch that sees a GPU; nothing was run" in done.stderr
    assert not (checkout / "bench" / "results").exists()

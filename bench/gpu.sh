#!/usr/bin/env bash
# On a machine with a GPU, torch with CUDA and nvcc: builds in place, tests, and measures, in less than 8 minutes and without
# network.  Every step runs whatever became of those before it; the exit status is 1 where one failed.
#
#   OUT      folder for results and logs (bench/results/gpu)
#   PYTHON   the interpreter that has torch (python3); PYTHONPATH may bring pytest, hypothesis, pybind11 and ninja
set -u
cd "$(dirname "$0")/.."
export PYTHON=${PYTHON:-python3} OUT=${OUT:-bench/results/gpu}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
CHECK_SECONDS=180 MEASURED_AT=420 # the benchmark ends at about the second of these seconds

capability=$("$PYTHON" -c 'import torch; print(*torch.cuda.get_device_capability(), sep=".")' 2>/dev/null) || {
    echo "bench/gpu.sh: $PYTHON has no torch that sees a GPU; nothing was run" >&2
    exit 1
}
[ "$capability" = 9.0 ] && capability=9.0a # with wgmma and the bulk copies
export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-$capability}
mkdir -p "$OUT"
rm -f "$OUT"/*.log "$OUT/summary.txt"
[ -e gconv_ext/bench ] || ln -s ../bench gconv_ext/bench # which only an installation puts there

step() { # NAME SECONDS COMMAND...
    local name=$1 seconds=$2 began=$SECONDS
    shift 2
    timeout -k 5 "$seconds" "$@" >"$OUT/$name.log" 2>&1
    echo "$name: exit status $? after $((SECONDS - began)) s, $name.log" | tee -a "$OUT/summary.txt"
}

not_run() { # NAME REASON
    echo "$1: not run: $2" | tee -a "$OUT/summary.txt"
}

tests() { # in one process a core, for Triton compiles a kernel or more in each test
    "$PYTHON" -c 'import hypothesis, pytest' || {
        echo "the tests need pytest and hypothesis: install them, or name a folder that has them in PYTHONPATH"
        return 1
    }
    local files=(python_tests/{test_cuda_ops,test_cuda_networks,test_memory_format,nn/test_batch_norm_planes,triton_kernels/test_kernels}.py) found ids mine processes=() status=0
    found=$("$PYTHON" -m pytest -q --collect-only "${files[@]}") || {
        echo "$found"
        return 1
    }
    mapfile -t ids < <(grep :: <<<"$found")
    for ((first = 0; first < $(nproc) && first < ${#ids[@]}; first++)); do
        mine=()
        for ((i = first; i < ${#ids[@]}; i += $(nproc))); do mine+=("${ids[i]}"); done
        "$PYTHON" -m pytest -q -p no:cacheprovider "${mine[@]}" &
        processes+=($!)
    done
    for process in "${processes[@]}"; do wait "$process" || status=1; done
    return $status
}

ptxas() {
    cmake -S . -B build/ptxas -G Ninja -DCMAKE_CUDA_ARCHITECTURES="${capability/./}" &&
        cmake --build build/ptxas --clean-first --target gconv_cuda
}

sanitizer() {
    local status=0
    for tool in memcheck racecheck; do
        echo "== $tool"
        PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $tool --error-exitcode 9 "$PYTHON" python_tests/gpu_smoke.py ||
            status=1
    done
    return $status
}

export capability
export -f tests ptxas sanitizer
step build $CHECK_SECONDS "$PYTHON" setup.py build_ext --inplace
step tests $CHECK_SECONDS bash -c tests &
if hash cmake ninja nvcc 2>/dev/null; then
    step ptxas $CHECK_SECONDS bash -c ptxas &
else
    not_run ptxas "it needs cmake, ninja and nvcc"
fi
if hash compute-sanitizer 2>/dev/null; then
    step sanitizer $CHECK_SECONDS bash -c sanitizer &
else
    not_run sanitizer "compute-sanitizer is not on PATH"
fi
wait # nothing runs beside the benchmark
budget=$((MEASURED_AT - SECONDS))
step bench $((budget + 60)) "$PYTHON" -m gconv_ext.cli bench --device cuda --out "$OUT" --budget "$budget"
echo "results and logs are in $OUT"
! grep -v 'exit status 0 \|: not run: ' "$OUT/summary.txt"

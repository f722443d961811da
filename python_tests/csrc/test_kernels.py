"""Builds the torch-free kernels with CMake, under AddressSanitizer and UndefinedBehaviorSanitizer, and runs their C++ tests; the
CUDA kernels among them, as python_tests/emulation runs them. Of the CPU's irrep kernels, float32 and bfloat16 alone, which
halves the longest compilation; make sanitize takes all four types."""

from building import configure, run, tool


def test_kernels_under_sanitizers(tmp_path):
    configure(tmp_path, "-DGCONV_SANITIZE=ON", "-DGCONV_FEW_TYPES=ON")
    run(tool("cmake"), "--build", tmp_path)
    output = run(tool("ctest"), "--test-dir", tmp_path, "--parallel", "2", "--output-on-failure", "--verbose")
    assert "0 failures" in output and "100% tests passed" in output

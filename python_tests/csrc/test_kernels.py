"""Builds the torch-free kernels with CMake, under AddressSanitizer and UndefinedBehaviorSanitizer, and runs their C++ tests; the
CUDA kernels among them, as python_tests/emulation runs them."""

from building import configure, run, tool


def test_kernels_under_sanitizers(tmp_path):
    configure(tmp_path, "-DGCONV_SANITIZE=ON")
    run(tool("cmake"), "--build", tmp_path)
    output = run(tool("ctest"), "--test-dir", tmp_path, "--output-on-failure", "--verbose")
    assert "0 failures" in output and "100% tests passed" in output

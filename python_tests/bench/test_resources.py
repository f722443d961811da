from gconv_ext.bench.resources import Kernel, parse, table

REPORT = """\
[1/2] Building CUDA object
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'plain' for 'sm_80'
ptxas info    : Function properties for plain
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 48 registers, used 1 barriers, 64 bytes smem, 856 bytes cmem[0]
ptxas info    : Compile time = 6.871 ms
ptxas info    : Compiling entry function 'spilling' for 'sm_90a'
ptxas info    : Function properties for called
    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Function properties for spilling
    8 bytes stack frame, 12 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
"""


def test_report_of_ptxas():
    kernels = parse(REPORT)
    assert kernels == [Kernel("plain", "sm_80", 48, 64), Kernel("spilling", "sm_90a", 255, 0, stack_bytes=24, spill_bytes=16)]
    assert table(kernels).splitlines()[2:] == ["| plain | sm_80 | 48 | 64 | 0 | 0 |", "| spilling | sm_90a | 255 | 0 | 24 | 16 |"]
    assert parse("ninja: no work to do.") == []

"""Instructions of an instruction set are in its kernels and nowhere else."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest
from support.disassembly import breaches, breaches_in, owners_of, width_of

from fastlstm._core import library

MODULES = sorted(Path(library.__file__).parent.glob("*.so"))


@pytest.fixture
def tools() -> None:
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        pytest.skip("not x86-64 Linux")
    for tool in ("objdump", "readelf"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool}: not installed")


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("module", MODULES, ids=[path.name.partition(".")[0] for path in MODULES])
def test_only_kernels_have_them(module: Path) -> None:
    assert breaches_in(module) == []


@pytest.mark.usefixtures("tools")
def test_the_kernels_are_found() -> None:
    """Or the test above would look at nothing."""
    files = list(owners_of(Path(library.__file__)).values())
    for name in ("avx512_f32.c", "avx512_f64.c", "avx2_f32.c", "avx2_f64.c", "driver_f32.c"):
        assert files.count(name) > 20


LISTING = """
0000000000001000 <product>:
    1000:\tvmulps %zmm1,%zmm2,%zmm3
    1006:\tret
0000000000002000 <product>:
    2000:\tvmulps %ymm1,%ymm2,%ymm3
    2004:\tkmovw  %eax,%k1
0000000000003000 <plan>:
    3000:\tmulsd  %xmm1,%xmm2
    3004:\tvmulsd %xmm1,%xmm2,%xmm3
    3008:\tvmulsd %xmm1,%xmm2,%xmm4
0000000000004000 <shared>:
    4000:\tvzeroupper
0000000000005000 <sum>:
    5000:\tvpdpbusd %xmm1,%xmm2,%xmm17
"""


def test_breaches_are_reported() -> None:
    owners = {0x1000: "avx512_f32.c", 0x2000: "avx2_f32.c", 0x3000: "driver_f32.c",
              0x5000: "avxvnni_f32.c"}  # fmt: skip
    assert list(breaches(LISTING, owners)) == [
        "avx2_f32.c: product: kmovw %eax,%k1",
        "driver_f32.c: plan: vmulsd %xmm1,%xmm2,%xmm3",
        "a file: shared: vzeroupper",
        "avxvnni_f32.c: sum: vpdpbusd %xmm1,%xmm2,%xmm17",
    ]


def test_what_runs_anywhere() -> None:
    for mnemonic, operands in [("addps", "%xmm1,%xmm2"), ("mov", "%rax,%rbx"), ("verr", "%ax")]:
        assert width_of(mnemonic, operands) == 0

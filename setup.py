"""Builds the extensions: each kernel file with the flags of its instruction set, the rest without.

Switches, in the environment: FASTLSTM_NO_OPENMP=1 builds without threads, FASTLSTM_WERROR=1 makes
warnings errors, FASTLSTM_CYTHON_DEBUG=1 turns on the bounds checks of the binding.
"""

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext as _build_ext
from setuptools.errors import CompileError, LinkError


def switched_on(name):
    return os.environ.get(name, "0") not in ("", "0")


# Flags of instruction sets are for these files only, <isa>_<type>.c: everything else must run on
# every CPU of the platform.
KERNELS = "src/kernels/isa"
ISA = re.compile(r'^FL_ISA\((\w+), (\w+), [\w |]+, \d+,\s+"(.*)",\s+"(.*)", \w+\)', re.MULTILINE)
PLATFORMS = {"x86_64": "X86_64", "amd64": "X86_64", "aarch64": "ARM64", "arm64": "ARM64"}

# Multiply and add are fused where the kernels say so and nowhere else.  Link-time optimization
# could mix code of files that were compiled for different instruction sets.
FLAGS = "-O3 -g0 -std=c11 -ffp-contract=off -fno-math-errno -fno-lto -fvisibility=hidden -Wall"
FLAGS_MSVC = "/O2 /std:c11 /experimental:c11atomics /fp:precise"

# Flags of the compiler and of the linker; the first that work are used.
OPENMP = [("-fopenmp", "-fopenmp"), ("-Xpreprocessor -fopenmp", "-lomp")]
PROBE = "#include <Python.h>\nint main(void) { return 0; }\n"
OPENMP_PROBE = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"

NO_COMPILER = (
    "fastlstm is written in C: install a C compiler and the headers of Python "
    "(Debian, Ubuntu: apt-get install gcc python3-dev; Fedora: dnf install gcc python3-devel; "
    "Alpine: apk add gcc musl-dev python3-dev; macOS: xcode-select --install), or a wheel that was "
    "built elsewhere"
)

DIRECTIVES = {
    "boundscheck": switched_on("FASTLSTM_CYTHON_DEBUG"),
    "wraparound": False,
    "cdivision": True,
    "freethreading_compatible": True,
}
CYTHON = {"language_level": 3, "compiler_directives": DIRECTIVES}


def isas_of(plat_name, msvc):
    """The instruction sets to compile for, and the flags of each."""
    platforms = {"ANY", *(PLATFORMS[name] for name in PLATFORMS if plat_name.endswith(name))}
    rows = ISA.findall(Path("src/cpu/isas.def").read_text())
    return {
        name: (flags_msvc if msvc else flags).split()
        for name, platform, flags, flags_msvc in rows
        if platform in platforms
    }


class build_ext(_build_ext):
    """Compiles the C sources, each with its own flags, and links them into their extension."""

    def finalize_options(self):
        super().finalize_options()
        self.force = True  # time stamps know nothing of the switches

    def build_extensions(self):
        self.msvc = self.compiler.compiler_type == "msvc"
        self.flags = (FLAGS_MSVC if self.msvc else FLAGS).split()
        if switched_on("FASTLSTM_WERROR"):
            self.flags.append("/WX" if self.msvc else "-Werror")
            Options.warning_errors = True
        self.check_compiler()
        openmp_flags, self.link_flags = self.find_openmp()
        self.flags += openmp_flags
        self.c_files = {}
        for ext in self.extensions:
            self.c_files[ext.name] = [name for name in ext.sources if name.endswith(".c")]
            ext.sources = [name for name in ext.sources if not name.endswith(".c")]
        # One after the other, as Cython wants it; then the compiler has all processors.
        cythonized = cythonize(self.extensions, build_dir=self.build_temp, force=True, **CYTHON)
        for ext, made in zip(self.extensions, cythonized, strict=True):
            ext.sources = made.sources
        self.parallel = self.parallel or os.cpu_count()
        super().build_extensions()

    def build_extension(self, ext):
        # Cython leaves a variable unused where there is no OpenMP.
        cython_flags = [] if self.msvc else ["-Wno-unused-but-set-variable"]
        ext.extra_compile_args, ext.extra_link_args = self.flags + cython_flags, self.link_flags
        extra = [*self.flags, "/W4" if self.msvc else "-Wextra"]
        c_files = self.c_files[ext.name]
        jobs = {name: extra for name in c_files if not name.startswith(KERNELS)}
        for isa, isa_flags in isas_of(self.plat_name, self.msvc).items():
            kernels = [name for name in c_files if name.startswith(f"{KERNELS}/{isa}_")]
            jobs |= dict.fromkeys(kernels, extra + isa_flags)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ext.extra_objects = list(pool.map(self.compile_one, jobs, jobs.values()))
        super().build_extension(ext)

    def compile_one(self, source, flags):
        where = {"output_dir": self.build_temp, "include_dirs": ["src"]}
        [name] = self.compiler.compile([source], **where, extra_postargs=flags)
        return name

    def probe(self, text):
        """The name of a new file with this source."""
        source = Path(self.build_temp, "probe.c")
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(text)
        return str(source)

    def check_compiler(self):
        """End in one line if nothing could be compiled, after what the compiler says of it."""
        try:
            self.compile_one(self.probe(PROBE), [])
        except CompileError:
            sys.exit(NO_COMPILER)

    def find_openmp(self):
        """The flags of compiler and linker for OpenMP; none where it is missing or unwanted."""
        if switched_on("FASTLSTM_NO_OPENMP"):
            return [], []
        source, program = self.probe(OPENMP_PROBE), str(Path(self.build_temp, "probe"))
        for flags in [("/openmp", "")] if self.msvc else OPENMP:
            compiling, linking = (text.split() for text in flags)
            try:
                probe = self.compile_one(source, compiling)
                self.compiler.link_executable([probe], program, extra_postargs=linking)
            except (CompileError, LinkError):
                continue
            return compiling, linking
        return [], []  # fastlstm.show_config() tells


def extension(path):
    """A module of the binding.  The C core is linked into one, which hands out its drivers."""
    name = path.with_suffix("").as_posix().replace("/", ".")
    core = sorted(Path("src").rglob("*.c")) if path.stem == "library" else []
    return Extension(
        name,
        [path.as_posix(), *(source.as_posix() for source in core)],
        include_dirs=["src", numpy.get_include()],
        define_macros=[
            ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
            ("NPY_TARGET_VERSION", "NPY_1_22_API_VERSION"),  # handlers of memory
        ],
    )


modules = [extension(path) for path in sorted(Path("fastlstm/_core").glob("*.pyx"))]
setup(ext_modules=modules, cmdclass={"build_ext": build_ext})

"""What all tests share: the installed package, a seeded generator, instruction sets, peers."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import isas
from support.checkout import CHECKOUT

# The tests are of the installed package.  The folder fastlstm/ of the checkout, which has no
# compiled core, would hide it under `python -m pytest` and in each `python -c` that a test starts;
# so the checkout goes to the end of the path here, and is not on it there.
TESTS = Path(__file__).resolve().parent


def is_checkout(entry: str) -> bool:
    return Path(entry).resolve() == CHECKOUT


sys.path.sort(key=is_checkout)
given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(TESTS), *(entry for entry in given if entry and not is_checkout(entry))]
)
os.environ["PYTHONSAFEPATH"] = "1"

import fastlstm  # noqa: E402
from fastlstm._core import library  # noqa: E402

library.adapt_teams(False)  # a busy machine must not make teams small that are tested

NOT_HERE = "isa: this CPU cannot run"


@pytest.fixture
def rng() -> np.random.Generator:
    """A random generator, the same in every test and every run."""
    return np.random.default_rng(20260101)


def _use(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    if name not in fastlstm.isas():
        pytest.skip(f"{NOT_HERE} {name}, only {', '.join(fastlstm.isas())}")
    monkeypatch.setenv("FASTLSTM_ISA", name)
    return name


@pytest.fixture(params=isas.OF_FLOATS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of each instruction set in turn; layers made in the test use it."""
    return _use(request.param, monkeypatch)


@pytest.fixture(params=isas.HERE)
def byte_isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Likewise, with those that only multiply bytes in another way."""
    return _use(request.param, monkeypatch)


@pytest.fixture
def same_threads() -> Iterator[None]:
    """Engines set the threads of their process; torch those of the OpenMP that it shares."""
    packages = ["fastlstm", "torch"] if importlib.util.find_spec("torch") else ["fastlstm"]
    modules = [importlib.import_module(name) for name in packages]
    before = [module.get_num_threads() for module in modules]
    yield
    for module, threads in zip(modules, before, strict=True):
        module.set_num_threads(threads)


def pytest_report_header() -> list[str]:
    """What was tested: the place of the package, CPU, instruction sets, OpenMP."""
    with contextlib.redirect_stdout(io.StringIO()) as text:
        fastlstm.show_config()
    return [f"fastlstm from {Path(fastlstm.__file__).parent}", *text.getvalue().splitlines()]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-peer-skips", action="store_true", help="fail where a peer test would be skipped"
    )
    parser.addoption(
        "--kills", type=int, default=4, help="how often to kill a process that writes checkpoints"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if item.get_closest_marker("peer") and NOT_HERE not in str(report.longrepr):
        fail_if_skipped(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    report = yield
    fail_if_skipped(report, collector.config)  # importorskip of a whole file
    return report


def fail_if_skipped(report: Any, config: pytest.Config) -> None:
    if report.skipped and config.getoption("--no-peer-skips"):
        report.outcome, report.longrepr = "failed", f"--no-peer-skips: {report.longrepr[2]}"

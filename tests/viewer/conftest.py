"""A real browser: Chromium, driven by Selenium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

OPTIONS = ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--window-size=1300,1000")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.importorskip("chromium")  # not a module: skipped as one that is missing
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(driver)
    with webdriver.Chrome(options=options, service=service) as chrome:
        yield chrome


class Browser:
    """A page in the browser, with what its tests ask for."""

    def __init__(self, chrome: Any, path: Path) -> None:
        self.chrome, self.path = chrome, path
        self.messages: list[str] = []

    def open(self, fragment: str = "", *, scheme: str = "light", width: int = 1300) -> Browser:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.chrome.set_window_size(width, 1000)
        self.chrome.get("about:blank")
        self.chrome.get_log("browser")
        self.chrome.get_log("performance")
        self.chrome.get(f"{self.path.as_uri()}{fragment}")
        self.until("document.documentElement.dataset.ready !== undefined")
        return self

    def until(self, condition: str) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.chrome, 30, 0.02).until(
            lambda chrome: chrome.execute_script(f"return {condition}")
        )

    def run(self, script: str) -> Any:
        return self.chrome.execute_script(script)

    def text(self, selector: str) -> str:
        return str(self.run(f"return document.querySelector({selector!r}).textContent"))

    def texts(self, selector: str) -> list[str]:
        return list(
            self.run(
                f"return Array.from(document.querySelectorAll({selector!r}), e => e.textContent)"
            )
        )

    def press(self, *keys: str, shift: bool = False) -> None:
        """Keys, sent to whatever has the focus."""
        from selenium.webdriver import ActionChains, Keys

        chain = ActionChains(self.chrome, duration=0)
        if shift:
            chain.key_down(Keys.SHIFT)
        for key in keys:
            chain.send_keys(getattr(Keys, key, key))
        if shift:
            chain.key_up(Keys.SHIFT)
        chain.perform()

    def focused(self) -> str:
        return str(
            self.run(
                "const e = document.activeElement;"
                "return e.id || e.getAttribute('aria-label') || e.value || e.textContent"
            )
        )


@pytest.fixture
def browser(chromium: Any, tmp_path: Path) -> Any:
    """A function that opens a page and checks in the end that nothing complained."""
    opened: list[Browser] = []

    def open_page(look: Any, fragment: str = "", **options: Any) -> Browser:
        path = tmp_path / f"{len(opened)}.html"
        look.save(path)
        opened.append(Browser(chromium, path))
        return opened[-1].open(fragment, **options)

    yield open_page
    assert opened
    assert chromium.get_log("browser") == []

"""A dataset that can be counted by hand, and a real browser."""

import json
import pathlib
import shutil

import pytest
from counted_by_hand import DETECTIONS, write_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """(path of the json, folder of the images, path of the detections)."""
    folder = tmp_path_factory.mktemp("dätaset")
    path, images = write_dataset(folder)
    found = folder / "detections.json"
    found.write_text(json.dumps(DETECTIONS))
    return path, images, found


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium, driven by selenium; the test is skipped only where there is none."""
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("There is no Chromium with its driver here.")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"):
        options.add_argument(f"--{flag}")
    options.add_argument("--disable-background-networking")
    options.add_argument("--disable-component-update")
    options.add_argument("--disable-dev-shm-usage")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture()
def open_page(browser):
    """A function that opens a file in a window of a size and returns the browser; logs begin anew."""

    def open_it(path, width=1280, height=900, scheme="light"):
        browser.get("about:blank")
        for log in ("browser", "performance"):
            browser.get_log(log)
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        browser.get(pathlib.Path(path).resolve().as_uri())
        return browser

    return open_it

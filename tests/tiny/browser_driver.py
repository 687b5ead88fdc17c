"""A headless Chromium that does what it is told, one JSON line at a time. Run by `.tools/bin/python`, which has selenium."""

import json
import sys
import time
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By


def main(chromium: str, chromedriver: str) -> None:
    options = Options()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--lang=en"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            try:
                answer = {"value": do(driver, **order)}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer, default=str), flush=True)
    finally:
        driver.quit()


def do(driver: Any, what: str, **given: Any) -> Any:
    match what:
        case "open":
            driver.get("about:blank")  # else another hash alone loads nothing
            driver.get(given["url"])
        case "screen":
            size = {
                "width": given["width"],
                "height": given["height"],
                "deviceScaleFactor": 1,
                "mobile": given["width"] < 600,
            }
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if given["dark"] else "light"}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        case "run":
            return driver.execute_script(given["script"], *given["arguments"])
        case "until":
            end = time.monotonic() + given["seconds"]
            while not (value := driver.execute_script(given["script"])):
                if time.monotonic() > end:
                    raise TimeoutError(
                        f"{given['script']}; the page says: {driver.find_element(By.TAG_NAME, 'body').text[:2000]}"
                    )
                time.sleep(0.05)
            return value
        case "keys":
            ActionChains(driver).send_keys(*given["keys"]).perform()
        case "picture":
            driver.save_screenshot(given["file"])
        case "console":
            return [entry["message"] for entry in driver.get_log("browser")]
        case _:
            raise ValueError(what)
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The page in a headless Chromium, on the files of runs: what it shows, by keyboard, on a phone, and where nobody answers.

The service is the real application under uvicorn; runs are files as phases leave them (tests/unit/report), one of them growing.
A run at work is looked at in test_service.py.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orpo_ray.client import RunState
from orpo_ray.config.layout import RunLayout
from orpo_ray.controller.lock import RunLock
from tests.tiny.browser import Browser, why_none
from tests.tiny.service import TOKEN, Service
from tests.unit.report.finished import write_finished_run, write_state
from tests.unit.report.traced import METRICS, write_traced_run
from tests.unit.service.fake_jobs import FakeJobs

pytestmark = [pytest.mark.skipif(why_none() is not None, reason=str(why_none())), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "runs").mkdir()
    service = Service(tmp_path / "runs", FakeJobs())
    service.start()
    yield service
    service.stop()


def let_in(browser: Browser, service: Service, path: str = "/#/") -> None:
    browser.keep_token(service.url, TOKEN)
    browser.open(service.url + path)


def texts(browser: Browser, css: str) -> list[str]:
    found: list[str] = browser.run(
        "return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText)", css
    )
    return found


def at_work(layout: RunLayout) -> None:
    """The run is in DISTILL, and three steps of it are done."""
    record = json.loads(layout.state.read_text())
    record["phases"]["DISTILL"]["state"] = "running"
    write_state(layout, state="running", phases=record["phases"])
    add_steps(layout, 1, 2, 3)


def add_steps(layout: RunLayout, *steps: int) -> None:
    shared: dict[str, Any] = {"run": layout.name, "phase": "DISTILL"}
    with layout.metrics.open("a") as metrics, layout.events.open("a") as events:
        for step in steps:
            line = METRICS | {"step": step, "loss": 2.0 / step, "margin": step / 10}
            metrics.write(json.dumps(line) + "\n")
            event = {
                "time": f"2024-01-01T00:00:{step:02d}.000Z",
                "kind": "distill.progress",
                "steps": 38,
                "staleness": 0.0,
            }
            events.write(
                json.dumps(
                    shared | event | {name: line[name] for name in ("step", "epoch", "loss", "pairs_per_s", "version")}
                )
                + "\n"
            )


def test_the_token_is_asked_for_and_a_wrong_one_is_not_taken(browser: Browser, service: Service) -> None:
    browser.open(service.url)
    browser.run("sessionStorage.clear()")
    browser.open(service.url)
    browser.sees("The service's token")
    browser.keys("wrong", "Enter")
    browser.sees("That token was not taken.")
    browser.keys(TOKEN, "Enter")
    browser.sees("No runs yet.")
    assert "Client" in texts(browser, "pre")[0]
    browser.run("document.getElementById('leave').click()")
    browser.sees("The service's token")
    assert browser.run("return sessionStorage.length") == 0


def test_runs_are_listed_and_chosen_to_compare_by_keyboard_alone(browser: Browser, service: Service) -> None:
    for day, name in ((10, "first"), (11, "second")):
        write_state(write_finished_run(service.storage, name), started=f"2024-01-{day}T00:00:00.000Z")
    let_in(browser, service)
    browser.sees("second")
    assert texts(browser, "tbody a") == ["second", "first"]
    assert "28.4 % (24.6–32.5)" in texts(browser, "tbody tr")[0]
    for _ in range(12):
        browser.keys("Tab")
        label = browser.run(
            "return document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"
        )
        if label.startswith("Compare "):
            browser.keys("Space")
        if browser.run("return document.querySelectorAll('input:checked').length") == 2:
            break
    browser.until(
        "return [...document.querySelectorAll('button')].some((one) => one.innerText === 'Compare 2' && !one.disabled)"
    )
    browser.run("[...document.querySelectorAll('button')].find((one) => one.innerText === 'Compare 2').focus()")
    browser.keys("Enter")
    browser.until("return location.hash === '#/compare/second,first'")
    browser.sees("Accuracy by epoch")
    assert browser.run("return document.querySelectorAll('svg circle.f2').length") == 3
    assert browser.console() == []


def test_a_run_at_work_goes_on_while_it_is_looked_at(browser: Browser, service: Service) -> None:
    layout = write_finished_run(service.storage)
    at_work(layout)
    with RunLock(layout.lock):
        let_in(browser, service, "/#/run/toy")
        browser.sees("DISTILL 3 / 38")
        assert texts(browser, "ol.phases li.running b") == ["DISTILL"]
        assert browser.run("return document.querySelector('progress').value") == 3
        browser.sees("35 s left")
        add_steps(layout, 4)
        browser.sees("DISTILL 4 / 38")
        browser.until(
            "return [...document.querySelectorAll('.log div')].filter((one) => one.innerText.includes('distill.progress')).length === 4"
        )
        charts = browser.run(
            "return [...document.querySelectorAll('svg[role=img]')].map((one) => one.getAttribute('aria-label'))"
        )
        assert any(
            text.startswith(
                "Accuracy by epoch. student, test: epoch 0 28.4 %, epoch 1 38.0 %, epoch 2 47.4 %; teacher 92.6 %"
            )
            for text in charts
        )
        assert any(text.startswith("Loss. loss from 2 to 0.5") for text in charts)
        assert any(
            text.startswith("Log-odds margin of chosen over rejected. margin from 0.1 to 0.4") for text in charts
        )
        assert any("versions behind 0: 4" in text for text in charts)
        browser.run("document.querySelector('svg[aria-label^=Loss]').focus()")
        browser.keys("Left")
        browser.sees("step 3: loss 0.6667")
    assert browser.console() == []


def test_a_run_is_stopped_only_when_asked_twice(browser: Browser, service: Service) -> None:
    layout = write_finished_run(service.storage)
    at_work(layout)
    key = ("toy", str(service.storage))
    service.jobs.jobs[key] = RunState.RUNNING
    with RunLock(layout.lock):
        let_in(browser, service, "/#/run/toy")
        browser.until(
            "return [...document.querySelectorAll('button')].some((one) => one.innerText === 'Stop' && !one.disabled)"
        )
        press = "[...document.querySelectorAll('button')].find((one) => one.innerText === arguments[0]).click()"
        browser.run(press, "Stop")
        browser.sees("Stop toy?")
        browser.run(press, "Let it work")
        assert service.jobs.jobs[key] is RunState.RUNNING
        browser.run(press, "Stop")
        browser.run(press, "Stop it")
        browser.until("return !document.querySelector('dialog').open")
    assert service.jobs.jobs[key] is RunState.STOPPED


def test_pairs_are_shown_chosen_beside_rejected_and_filtered(browser: Browser, service: Service) -> None:
    write_traced_run(service.storage)
    let_in(browser, service, "/#/run/toy/pairs")
    browser.sees("which is all")
    every = texts(browser, "article")
    browser.run("document.querySelector('[name=version]').focus()")
    browser.keys("1..", "Enter")
    browser.until(
        f"return document.querySelectorAll('article').length < {len(every)} && document.body.innerText.includes('which is all')"
    )
    shown = texts(browser, "article")
    assert shown
    assert all("version 1" in text for text in shown)
    boxes = browser.run(
        "return [...document.querySelectorAll('.pair')[0].children].map((one) => one.getBoundingClientRect().toJSON())"
    )
    assert boxes[0]["right"] <= boxes[1]["left"]
    browser.run("document.querySelector('[name=overlap]').value = 'much'")
    browser.run("document.querySelector('form button').click()")
    browser.sees("give a number or a range")
    browser.run("[...document.querySelectorAll('.tabs a')].find((one) => one.innerText === 'traces').click()")
    browser.sees("14 traces, which is all")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("path", ["/#/", "/#/run/toy", "/#/run/toy/pairs", "/#/compare/toy,toy"])
def test_nothing_is_wider_than_a_phone_and_all_text_can_be_read(
    browser: Browser, service: Service, path: str, dark: bool
) -> None:
    write_traced_run(service.storage)
    try:
        browser.screen(375, 740, dark=dark)
        let_in(browser, service, path)
        browser.until(
            "return document.querySelector('main').innerText.includes('toy') && !document.body.innerText.includes('Reading')"
        )
        assert browser.run("return document.documentElement.scrollWidth") <= 375
        assert browser.run(CONTRASTS) == []
    finally:
        browser.screen(1280, 900)


# Texts whose contrast with what is behind them is below 4.5 : 1 (WCAG 2, AA).
CONTRASTS = """
const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
const behind = (one) => { for (; one; one = one.parentElement) { const c = parse(getComputedStyle(one).backgroundColor); if (c[3] > 0.99) return c; } return [255, 255, 255, 1]; };
const found = [];
for (const one of document.querySelectorAll('body *')) {
  if (![...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) || !one.getClientRects().length || one.disabled) continue;
  const style = getComputedStyle(one);
  const [light, dark] = [luminance(parse(one instanceof SVGElement ? style.fill : style.color)), luminance(behind(one))].sort((a, b) => b - a);
  if ((light + 0.05) / (dark + 0.05) < 4.5) found.push(`${one.tagName} ${one.textContent.slice(0, 40)}: ${((light + 0.05) / (dark + 0.05)).toFixed(2)}`);
}
return found;
"""


def test_a_service_that_goes_away_is_told_of_and_taken_up_again(browser: Browser, service: Service) -> None:
    layout = write_finished_run(service.storage)
    at_work(layout)
    with RunLock(layout.lock):
        let_in(browser, service, "/#/run/toy")
        browser.sees("DISTILL 3 / 38")
        service.stop()
        browser.sees("The service does not answer.")
        assert "DISTILL 3 / 38" in browser.run("return document.body.innerText")
        add_steps(layout, 4, 5)
        service.start()
        browser.sees("DISTILL 5 / 38", seconds=60)
        browser.until("return document.getElementById('trouble').hidden")
        # No event is missed or told twice by the stream that was broken.
        browser.until(
            "return [...document.querySelectorAll('.log div')].filter((one) => one.innerText.includes('distill.progress')).length === 5",
            60,
        )


def test_a_run_that_there_is_not_is_said_to_be_none(browser: Browser, service: Service) -> None:
    let_in(browser, service, "/#/run/nothing")
    browser.sees("nothing: no run of this name")


def test_nothing_is_loaded_from_another_host(browser: Browser, service: Service) -> None:
    write_finished_run(service.storage)
    let_in(browser, service, "/#/run/toy")
    browser.sees("Accuracy by epoch")
    loaded = browser.run("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert loaded
    assert all(name.startswith(service.url) for name in loaded)

"""Headless Chromium, and what tests do on the page as a person would."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SHOTS = Path("out/dashboard")
WITHIN_MS = 20_000
# What is told of frames and of updates that they show, before any of the page's own scripts run.
WATCH = """
window.watched = {updates: [], frames: [], violations: []};
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) if (one.name === "scalesim.update") {
    window.watched.updates.push([one.startTime, one.duration]);
  }
}).observe({type: "measure"});
document.addEventListener("securitypolicyviolation", (event) => window.watched.violations.push(event.blockedURI));
"""
COUNT_FRAMES = """
() => {
  let last = null;
  const count = (now) => {
    if (last !== null) window.watched.frames.push(now - last);
    last = now;
    requestAnimationFrame(count);
  };
  requestAnimationFrame(count);
}
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, *, token: str | None = None, **context: Any) -> Iterator[Page]:
    """Open the page in a context of its own, signed in with a token; it ends without an error on the page."""
    given = {"viewport": {"width": 1440, "height": 900}, **context}
    with browser.new_context(**given) as one:
        one.set_default_timeout(WITHIN_MS)
        one.add_init_script(WATCH)
        page = one.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url)
        if token is not None:
            sign_in(page, token)
        yield page
        assert page.evaluate("window.watched.violations") == []
        assert wrong == []


def sign_in(page: Page, token: str) -> None:
    """Type a token into the dialog."""
    page.get_by_role("button", name="Sign in").first.click()
    dialog = page.get_by_role("dialog", name="Sign in")
    dialog.get_by_label("Token").fill(token)
    dialog.get_by_role("button", name="Sign in", exact=True).click()


def live(page: Page, agents: int = 0, within: float = WITHIN_MS) -> None:
    """Wait until the page is connected and knows so many agents."""
    expect(page.locator(".state.live")).to_be_visible(timeout=WITHIN_MS)
    expect(page.get_by_role("heading", name="Who is near")).to_be_visible()
    page.wait_for_function(
        "(least) => Number(document.querySelector('.tile dd.figure').textContent.replace(/\\D/g, '')) >= least",
        arg=agents,
        timeout=within,
    )


def open_agent(page: Page, key: str) -> None:
    """Find an agent in the list and open it."""
    page.get_by_label("Find an agent by a part of its key").fill(key)
    page.get_by_role("button", name=key, exact=True).first.click()
    expect(page.get_by_role("dialog", name=f"Agent {key}")).to_be_visible()


def frames(count: int) -> str:
    """Return a script that takes as long as so many frames."""
    return f"""async () => {{
      for (let left = {count}; left > 0; left--) await new Promise(requestAnimationFrame);
    }}"""


def shot(page: Page, name: str, *, whole: bool = False) -> None:
    """Leave a picture of the page for people, or of the `whole` of it."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", animations="disabled", full_page=whole)

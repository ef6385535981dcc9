"""The dashboard steers the daemon: by click with an admin's token, by keyboard alone, and never with a viewer's."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.browser import live, open_agent, opened, shot, sign_in
from tests.dashboard.conftest import ADMIN, VIEWER, Place
from tests.dashboard.crowd import village

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
with_tokens = pytest.mark.parametrize("place", ["tokens"], indirect=True)


def pins(place: Place) -> list[str]:
    answer = httpx.get(f"{place.daemon.api}/v1/pins", headers={"Authorization": f"Bearer {ADMIN}"})
    return [one["key"] for one in answer.raise_for_status().json()["pins"]]


def first_agent(page: Page) -> str:
    return page.locator("td.name button.link").first.inner_text()


@with_tokens
def test_an_admin_pins_and_prefetches_by_click(browser: Browser, place: Place) -> None:
    with village(place.engine, place.daemon.feed, pace=0.6), opened(browser, place.url, token=ADMIN) as page:
        live(page, 25)
        key = first_agent(page)
        open_agent(page, key)
        sheet = page.get_by_role("dialog", name=f"Agent {key}")
        sheet.get_by_label("How long to pin it").select_option(label="10 minutes")
        sheet.get_by_role("button", name="Pin", exact=True).click()
        expect(sheet.get_by_role("button", name="Unpin")).to_be_visible()
        expect(page.locator("#announcer")).to_have_text(f"{key} is pinned for 10 min.")
        assert pins(place) == [key]
        shot(page, "agent")
        sheet.get_by_role("button", name="Unpin").click()
        expect(sheet.get_by_role("button", name="Unpin")).to_have_count(0)
        assert pins(place) == []
        sheet.get_by_role("button", name="Prefetch").click()
        expect(page.locator("#announcer")).to_contain_text(f"prefetch of {key}: done")
        sheet.get_by_role("button", name="Evict").click()
        expect(page.locator("#announcer")).to_contain_text("Refused: ")
        sheet.get_by_role("button", name="Close").click()
        page.get_by_role("group", name="Mode").get_by_role("button", name="Observe").click()
        expect(page.get_by_role("button", name="Observe")).to_have_attribute("aria-pressed", "true")
        assert httpx.get(f"{place.daemon.api}/health").json()["mode"] == "observe"


@with_tokens
def test_a_viewer_sees_everything_and_changes_nothing(browser: Browser, place: Place) -> None:
    with village(place.engine, place.daemon.feed, pace=0.6), opened(browser, place.url) as page:
        expect(page.get_by_role("alert")).to_contain_text("The daemon asks for a token.")
        sign_in(page, "no-token-of-anybody")
        expect(page.get_by_role("alert")).to_contain_text("no role has this token")
        shot(page, "refused")
        sign_in(page, VIEWER)
        live(page, 25)
        expect(page.locator(".banner")).to_contain_text("signed in as a viewer")
        for name in ("Active", "Observe", "Paused"):
            button = page.get_by_role("group", name="Mode").get_by_role("button", name=name)
            expect(button).to_be_disabled()
            expect(button).to_have_attribute(
                "title", "Your token only reads. Sign in with an admin's token to act."
            )
        key = first_agent(page)
        open_agent(page, key)
        sheet = page.get_by_role("dialog", name=f"Agent {key}")
        expect(sheet).to_contain_text("Your token only reads.")
        for name in ("Pin", "Prefetch", "Evict"):
            expect(sheet.get_by_role("button", name=name, exact=True).first).to_be_disabled()
        assert pins(place) == []
        assert page.evaluate("localStorage.length") == 0
        assert page.evaluate("Object.keys(sessionStorage)") == ["scalesim.token"]


def test_the_keyboard_alone_is_enough(browser: Browser, place: Place) -> None:
    with village(place.engine, place.daemon.feed, pace=0.6), opened(browser, place.url) as page:
        live(page, 25)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        focused = page.get_by_role("application")
        expect(focused).to_be_focused()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#announcer")).to_contain_text("village/")
        first = page.locator("#announcer").inner_text()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#announcer")).not_to_have_text(first)
        expect(page.locator(".tip b")).to_be_visible()
        page.keyboard.press("Enter")
        sheet = page.get_by_role("dialog")
        expect(sheet).to_contain_text("Next call")
        key = sheet.get_by_role("heading", level=2).inner_text()
        while not page.evaluate("document.activeElement.textContent === 'Pin'"):
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(sheet.get_by_role("button", name="Unpin")).to_be_visible()
        page.keyboard.press("Escape")
        expect(sheet).to_have_count(0)
        expect(focused).to_be_focused()
        assert [one["key"] for one in httpx.get(f"{place.daemon.api}/v1/pins").json()["pins"]] == [key]


@with_tokens
def test_it_says_that_the_daemon_is_away_and_comes_back_with_it(browser: Browser, place: Place) -> None:
    with village(place.engine, place.daemon.feed, pace=0.6), opened(browser, place.url, token=ADMIN) as page:
        live(page, 25)
        place.daemon.kill()
        expect(page.get_by_role("alert")).to_contain_text("The daemon doesn't answer.")
        expect(page.locator(".state.away")).to_be_visible()
        expect(page.get_by_role("button", name="Active")).to_be_disabled()
        shot(page, "away")
        place.daemon.start()
        live(page, 25)
        expect(page.locator(".banner")).to_have_count(0)
        expect(page.get_by_role("button", name="Active")).to_be_enabled()

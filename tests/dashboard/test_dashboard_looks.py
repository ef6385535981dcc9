"""The dashboard as people see it: live, light and dark, on a phone, by ear, and whatever an agent's name holds."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from scalesim_client import Publisher
from tests.dashboard.browser import COUNT_FRAMES, frames, live, open_agent, opened, shot
from tests.dashboard.conftest import Place
from tests.dashboard.crowd import crowd, village
from tests.dashboard.vendor import AXE_FILE

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
AXE = ROOT / ".envs" / "axe" / AXE_FILE
MANY = 10_000
INTERACTIVE_MS = 2000
UPDATE_MS = 100
STALL_MS = 250
EVIL = (
    '<img src=x onerror="window.hacked=1">',
    '"><script>window.hacked=1</script>',
    "javascript:window.hacked=1//${window.hacked=1}",
    "{{constructor.constructor('window.hacked=1')()}}",
)


def both_themes(page: Page, name: str) -> None:
    """Leave pictures of the page in light and in dark."""
    for theme in ("light", "dark"):
        if page.evaluate("document.documentElement.dataset.theme") != theme:
            page.get_by_role("button", name=f"Use the {theme} theme").click()
        page.mouse.move(0, 0)
        page.evaluate(frames(3))
        shot(page, f"{name}-{theme}")


def test_a_village_is_seen_as_it_lives(browser: Browser, place: Place) -> None:
    with village(place.engine, place.daemon.feed, pace=0.8), opened(browser, place.url) as page:
        live(page, 25)
        before = page.locator(".clocks b").inner_text()
        expect(page.locator(".clocks b")).not_to_have_text(before)
        expect(
            page.locator("section", has=page.get_by_role("heading", name="Decisions")).locator("tbody tr")
        ).not_to_have_count(0)
        expect(page.get_by_role("article", name="Engine vllm")).to_contain_text("answers")
        for chart in ("Found on the device", "Time to first token"):
            expect(page.get_by_role("img", name=chart)).to_be_visible(timeout=60_000)
        expect(page.get_by_role("region", name="Estimators of all streams")).to_contain_text("activity")
        page.wait_for_function(
            "async () => (await (await fetch('v1/history')).json()).samples.length >= 14", timeout=90_000
        )
        both_themes(page, "village")
        shot(page, "village-whole", whole=True)


def test_ten_thousand_agents_move_without_a_stutter(browser: Browser, place: Place) -> None:
    agents = crowd(place.engine, place.daemon.feed, MANY, pace=1.0, prefixes=300)
    with agents:
        with opened(browser, place.url) as page:
            live(page, MANY, within=90_000)
        with opened(browser, place.url) as page:
            live(page, MANY)
            page.wait_for_function("() => window.watched.updates.length > 0")
            start, took = page.evaluate("window.watched.updates[0]")
            page.evaluate("window.watched.updates.length = 0")
            page.evaluate(COUNT_FRAMES)
            page.wait_for_function("() => window.watched.updates.length >= 30", timeout=90_000)
            updates = sorted(took for _, took in page.evaluate("window.watched.updates"))
            frames = sorted(page.evaluate("window.watched.frames"))
            middle = len(updates) // 2
            print(
                f"\n{MANY:,} agents: interactive after {start + took:.0f} ms; {len(updates)} updates shown within "
                f"{updates[middle]:.0f} ms (median), {updates[int(len(updates) * 0.9)]:.0f} ms (90 %), "
                f"{updates[-1]:.0f} ms (slowest); {len(frames)} frames, "
                f"{frames[len(frames) // 2]:.0f} ms apart (median), {frames[int(len(frames) * 0.99)]:.0f} ms (99 %), "
                f"{frames[-1]:.0f} ms (longest)"
            )
            both_themes(page, "dashboard")
            assert start + took < INTERACTIVE_MS
            assert updates[middle] < UPDATE_MS
            assert updates[int(len(updates) * 0.9)] < UPDATE_MS
            assert frames[int(len(frames) * 0.99)] < STALL_MS


def test_the_list_has_what_the_map_has(browser: Browser, place: Place) -> None:
    with Publisher("sim", address=place.daemon.feed) as publisher:
        for number in range(60):
            publisher.activity(f"a{number:02}", until=float(60 - number))
        publisher.step(0)
        with opened(browser, place.url) as page:
            live(page, 60)
            expect(page.locator("td.name button.link")).to_have_count(40)
            assert page.locator("td.name button.link").first.inner_text() == "sim/a59"
            page.get_by_role("button", name="Show 100 more").click()
            expect(page.locator("td.name button.link")).to_have_count(60)
            page.get_by_label("Find an agent by a part of its key").fill("A1")
            expect(page.locator("td.name button.link")).to_have_count(10)
            expect(page.locator("tbody tr", has_text="sim/a10")).to_contain_text("50 steps")
            publisher.step(58)
            expect(page.locator("tbody tr", has_text="sim/a10")).to_contain_text("now")


def test_names_are_text_whatever_is_in_them(browser: Browser, place: Place) -> None:
    with Publisher("sim", address=place.daemon.feed, source=EVIL[0]) as publisher:
        for name in EVIL:
            publisher.bind(name, token_ids=list(range(64)), model="base")
            publisher.activity(name, until=3.0)
        publisher.step(0)
        with opened(browser, place.url) as page:
            live(page, len(EVIL))
            for name in EVIL:
                open_agent(page, f"sim/{name}")
                expect(page.get_by_role("dialog").locator(".facts")).to_contain_text("due at 3")
                page.keyboard.press("Escape")
            box = page.locator(".map").bounding_box()
            assert box is not None
            for x in range(0, int(box["width"]), 12):
                page.mouse.move(box["x"] + x, box["y"] + box["height"] * 0.88)
            assert page.evaluate("window.hacked") is None
            assert page.locator("img").count() == 1, "the page's own"
            assert page.locator("#root script").count() == 0


def test_a_phone_shows_all_of_it(browser: Browser, place: Place) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True}
    with (
        village(place.engine, place.daemon.feed, pace=0.8),
        opened(browser, place.url, **phone, color_scheme="dark") as page,
    ):
        live(page, 25)
        expect(page.get_by_role("img", name="Found on the device")).to_be_visible(timeout=60_000)
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        shot(page, "phone")
        page.locator(".map").scroll_into_view_if_needed()
        shot(page, "phone-map")


def test_reduced_motion_is_respected(browser: Browser, place: Place) -> None:
    with Publisher("sim", address=place.daemon.feed) as publisher:
        publisher.activity("a", until=9.0)
        publisher.step(0)
        with opened(browser, place.url, reduced_motion="reduce") as page:
            live(page, 1)
            agent = "document.querySelector('.map canvas').toDataURL()"
            before = page.evaluate(agent)
            publisher.step(5)
            expect(page.locator(".clocks b")).to_have_text("step 5")
            page.evaluate(frames(2))
            after = page.evaluate(agent)
            assert before != after
            page.evaluate(frames(20))
            assert page.evaluate(agent) == after, "it was there at once"


@pytest.mark.skipif(not AXE.exists(), reason="axe-core isn't there: `make test-dashboard` fetches it")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_serious_is_in_the_way_of_anybody(browser: Browser, place: Place, theme: str) -> None:
    with (
        village(place.engine, place.daemon.feed, pace=0.8),
        opened(browser, place.url, color_scheme=theme, bypass_csp=True) as page,
    ):
        live(page, 25)
        expect(page.get_by_role("region", name="Decisions, the latest first")).to_be_visible(timeout=60_000)
        page.evaluate(AXE.read_text())
        check(page)
        page.locator("td.name button.link").first.click()
        expect(page.get_by_role("dialog").locator(".facts")).to_be_visible()
        check(page)


def check(page: Page) -> None:
    """Raise where axe finds what it calls serious or critical."""
    found = page.evaluate("axe.run()")["violations"]
    serious = {
        one["id"]: [node["target"] for node in one["nodes"]][:5]
        for one in found
        if one["impact"] in ("serious", "critical")
    }
    assert serious == {}


def test_its_parts_compute_what_they_say(browser: Browser, place: Place) -> None:
    with opened(browser, place.url) as page:
        split = """async () => {
          const {Messages} = await import("/dashboard/js/events.js");
          const text = ': alive\\n\\nevent: a\\ndata: {"x": 1}\\n\\nevent: b\\ndata: [2]\\n\\nevent: c';
          return Array.from({length: text.length}, (_, cut) => {
            const messages = new Messages();
            return JSON.stringify([...messages.read(text.slice(0, cut)), ...messages.read(text.slice(cut))]);
          });
        }"""
        told = page.evaluate(split)
        assert set(told) == {'[{"name":"a","data":{"x":1}},{"name":"b","data":[2]}]'}
        nearest = """async () => {
          const {Agents} = await import("/dashboard/js/agents.js");
          const agents = new Agents();
          const rows = Array.from({length: 500}, (_, n) => ({
            key: `s/${(n * 7919) % 500}`, due: n % 9 ? (n * 31) % 97 : null, source: n % 2 ? "s" : "t",
            tier: null, resident: null, in_flight: n % 50 === 0 ? 1 : 0, pinned: false}));
          const clocks = {s: {kind: "step", now: 10, pace: 2}, t: {kind: "sim_seconds", now: 5, pace: 0.5}};
          agents.snapshot({clocks, agents: rows});
          const rank = (one) => one.in_flight ? -1 : agents.seconds(one);
          const all = [...agents.byKey.values()].sort((a, b) => rank(a) - rank(b) || (a.key < b.key ? -1 : 1));
          const wanted = all.slice(0, 33).map((one) => one.key).join();
          return agents.nearest(33).map((one) => one.key).join() === wanted && agents.commonKind === null;
        }"""
        assert page.evaluate(nearest)
        axis = """async () => {
          const {Axis, niceCeiling} = await import("/dashboard/js/map/scale.js");
          const axis = new Axis();
          axis.fit(730);
          const at = Array.from({length: 1000}, (_, n) => axis.at(n));
          const grows = at.every((x, n) => n === 0 ? x === 0 : x >= at[n - 1]);
          const ticks = axis.ticks(0.05, 1).length;
          return [axis.max, grows, axis.at(axis.max), ticks > 4, niceCeiling(0.03), niceCeiling(20)];
        }"""
        assert page.evaluate(axis) == [1000, True, 1, True, 0.05, 20]


def test_it_reads_as_a_page_where_nothing_runs_yet(browser: Browser, place: Place) -> None:
    with opened(browser, place.url) as page:
        live(page)
        expect(page.get_by_text("No agent is known yet")).to_be_visible()
        expect(page.get_by_text("no simulation speaks yet")).to_be_visible()
        expect(page.get_by_text("Nothing to do: what is near is where it is needed.")).to_be_visible()
        shot(page, "empty")
        assert httpx.get(place.url).headers["content-type"].startswith("text/html")

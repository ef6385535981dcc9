"""The dashboard's connection: none stays of a failed attempt, a token holds without storage, decisions come once."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.dashboard.browser import live, opened, sign_in
from tests.dashboard.conftest import VIEWER, Place

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
with_tokens = pytest.mark.parametrize("place", ["tokens"], indirect=True)
# Listens, chokes on the first message, and returns whether the stream that it had opened is given up.
CHOKE = """
async () => {
  const { Link } = await import("/dashboard/js/link.js");
  const streams = [];
  const original = window.fetch;
  window.fetch = (path, options) => {
    if (path === "v1/stream") streams.push(options.signal);
    return original(path, options);
  };
  await new Promise((broken) => {
    const model = { set: ({ link }) => link && broken() };
    new Link(model, () => { throw new Error("choked"); }).run();
  });
  return streams.map((signal) => signal.aborted);
}
"""
# Hears one decision by the stream before, and one after, an answer that holds both it and an earlier one.
DECIDED = """
async () => {
  const { Model } = await import("/dashboard/js/model.js");
  const model = new Model(() => {});
  const [first, second, third] = [1, 2, 3].map((at) => ({ at, engine: "e", step: { key: "a/b", action: "load" } }));
  model.hear({ name: "decisions", data: [second] });
  model.decided([second, first]);
  model.hear({ name: "decisions", data: [second, third] });
  return model.decisions.map(({ at }) => at);
}
"""
WITHOUT_STORAGE = """
for (const name of ["sessionStorage", "localStorage"]) Object.defineProperty(window, name, {
  get() { throw new DOMException("blocked", "SecurityError"); },
});
"""


def test_a_failed_attempt_leaves_no_stream_open(browser: Browser, place: Place) -> None:
    with opened(browser, place.url) as page:
        live(page)
        assert page.evaluate(CHOKE) == [True]


def test_a_stream_that_is_not_answered_is_given_up(browser: Browser, place: Place) -> None:
    with opened(browser, place.url) as page:
        page.clock.install()
        page.route("**/v1/stream", lambda route: None)
        with page.expect_request("**/v1/stream"):
            page.reload()
        page.clock.fast_forward(41_000)
        expect(page.get_by_role("alert")).to_contain_text("nothing was heard for 40 s")


def test_decisions_come_once_whatever_tells_them(browser: Browser, place: Place) -> None:
    with opened(browser, place.url) as page:
        assert page.evaluate(DECIDED) == [3, 2, 1]


@with_tokens
def test_a_token_holds_where_nothing_can_be_kept(browser: Browser, place: Place) -> None:
    with opened(browser, place.url) as page:
        page.add_init_script(WITHOUT_STORAGE)
        page.reload()
        sign_in(page, VIEWER)
        live(page)

"""The door that the publisher's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from router import Router


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as router:
        yield router

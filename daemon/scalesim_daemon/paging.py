"""The one way of paging: `offset` and `limit`, answered with the `total`."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

LARGEST_PAGE = 1000
LARGEST_NUMBER = 2**63 - 1

Offset = Annotated[int, Query(ge=0, le=LARGEST_NUMBER)]
Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE)]

"""A daemon's way to its store, which can be cut so that neither side learns of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from bench.fleet.relay import Relay


class Way(Relay):
    """A proxy before the store. While it is `cut` it takes connections and bytes, and passes nothing on: as a network
    does that drops packets."""

    cut = False

    async def there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what isn't lost."""
        with suppress(OSError):
            while chunk := await reader.read(1 << 16):
                if not self.cut:
                    writer.write(chunk)
                    await writer.drain()
            writer.close()

    back = there

"""`python -m bench.gpu.staging FILE`: the daemon's side of the hand-over.

It stages the file, which lies in shared memory, on the device, says the handle in hexadecimal digits, and keeps the
copy until its standard input ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

from scalesim_adapters.hostbuf import cuda
from scalesim_adapters.hostbuf.segment import Segment


def main() -> None:
    """Stage, and wait."""
    path = Path(sys.argv[1])
    segment = Segment(path, path.stat().st_size)
    with cuda.registered(segment.buffer) as address, cuda.staged(address, segment.size) as handle:
        print(handle.hex(), flush=True)
        sys.stdin.read()
    segment.close()


if __name__ == "__main__":
    main()

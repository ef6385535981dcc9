"""Which test runs what: scenes by name, each a row of blocks on the pages."""

from __future__ import annotations

COMMANDS = "tests/docs/test_docs_commands.py"
SCENES = {
    "start": COMMANDS,
    "beside": COMMANDS,
    "security": COMMANDS,
    "vllm": "tests/engines/test_docs_vllm.py",
    "curl": "tests/client/test_publish_by_curl.py",
    "ci": ".ci/run",
}

"""What a test needs and a machine may lack."""

import os
import re
from typing import NoReturn

import pytest


def skip_for_want_of(tool: str, remedy: str) -> NoReturn:
    """Skip the test, or its module, or fail it when COFINE_REQUIRE names the tool."""
    message = f"no {tool}: {remedy}"
    if tool in re.split(r"[,\s]+", os.environ.get("COFINE_REQUIRE", "")):
        pytest.fail(message)
    pytest.skip(message, allow_module_level=True)

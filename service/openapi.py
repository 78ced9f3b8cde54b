"""`python -m service.openapi > openapi.json`: the HTTP interface as a document to commit.

Clients are generated from the committed document, so a change of the interface is seen as a change
of that file.
"""

import json
import sys

from service.app import create_app
from service.settings import load_settings


def openapi_text() -> str:
    """Return the document as it is committed: indented, keys sorted, UTF-8."""
    document = create_app(load_settings()).openapi()
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(openapi_text())

"""`python -m service.new_key NAME SCOPE...`: make a key.

Standard output gets the entry for the keys file; standard error gets the key itself, which is
stored nowhere: hand it to its user now.
"""

import argparse
import sys

from service.api_keys import entry_text, new_key, parse_keys
from service.errors import SettingsError
from service.scopes import SCOPES

_STAND_IN = '[[user_token_secrets]]\nname = "x"\nsecret = "' + "x" * 32 + '"\n'


def main() -> None:
    """Print a new key and its entry."""
    parser = argparse.ArgumentParser(prog="python -m service.new_key", description=__doc__)
    parser.add_argument("name", help="of the key, as in logs")
    parser.add_argument("scopes", nargs="+", choices=SCOPES, metavar="SCOPE")
    given = parser.parse_args()
    key = new_key()
    text = entry_text(given.name, key, given.scopes)
    try:
        parse_keys(text + _STAND_IN, "the new entry")
    except SettingsError as error:
        parser.error(str(error))
    sys.stdout.write(text)
    sys.stderr.write(f"{key}\n")


if __name__ == "__main__":
    main()

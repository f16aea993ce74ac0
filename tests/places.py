"""Where things lie that tests read beside the packages."""

from pathlib import Path

#: The checkout.
ROOT = Path(__file__).parents[1]
#: Large captures, which are not shipped; tests that want them are skipped where they are not.
SHARED = ROOT.parent / "shared" / "data"

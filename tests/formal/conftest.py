"""What a proof is told by its mark: ``proof(of, mode, depth)``, see `tests.formal.listing`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.formal.prove import Verdict, check


@pytest.fixture
def judge(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Verdict]:
    """Verdict on a component and its properties, in the mode and to the depth of the mark."""
    (mark,) = request.node.iter_markers("proof")

    def judge(component: Any, properties: Callable[..., None]) -> Verdict:
        mode, depth = mark.kwargs["mode"], mark.kwargs["depth"]
        return check(component, properties, tmp_path, mode=mode, depth=depth)

    return judge

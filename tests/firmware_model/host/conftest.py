"""Work for boards in Python."""

import numpy as np
import pytest

from firmware_model.host.image import Image, place_jobs
from firmware_model.reference.outputs import model_outputs
from tests.firmware_model.host.jobs import make_job
from tests.firmware_model.host.runs import TINY


@pytest.fixture(scope="session")
def work() -> tuple[Image, list[np.ndarray]]:
    """Two heads, and the words of the integer model."""
    jobs = [make_job(TINY, order, 5) for order in (0, 4)]
    return place_jobs(TINY, jobs, 0), [model_outputs(TINY, job) for job in jobs]

"""Scenarios and results come back as they were written."""

import json

import pytest
from pydantic import ValidationError

from firmware_model.host.driver import Counters
from paro.config import PRESETS
from rtl.bus.axi_lite import Response
from sim.cosim import accelerator_scenario, core_scenario
from sim.cosim.exchange import load_dataclass, save_dataclass

COUNTERS = Counters(9, 1, 2, 3, 4, 5, [{"qk": {"busy": 1, "starved": 2, "blocked": 3}}])
RECORDS = [
    core_scenario.Scenario(
        commands=[core_scenario.CommandBeats((0, 3), {"Q": [(0, 8), (8, 2)]}, 1, 16, [1, 0])],
        memory_latency=30,
        stall_seed=None,
        reset_at=7,
        idle_limit=100,
        status_bits={"command": 0},
        operands=["Q", "K", "V"],
        fetch_block=(2, 11),
        fetch_chunk=(13, 9),
        counter_bits=32,
    ),
    core_scenario.Result(
        None, [core_scenario.CommandResult(1, [0, 1], 9, [4, 4]), core_scenario.CommandResult(5)]
    ),
    accelerator_scenario.Scenario(
        configuration=PRESETS["tiny"].model_dump(),
        images=["image_0.safetensors"],
        memory_bytes=1 << 17,
        latency_low=1,
        latency_span=39,
        stall_seed=5,
        stall_rates={"ar": 0, "r": 230},
        idle_limit=100,
        keeps_bursts=True,
        steps=[
            accelerator_scenario.Step(),
            accelerator_scenario.Step(0, "read_error", 4, Response.DECERR),
        ],
    ),
    accelerator_scenario.Result(
        "objection",
        [
            accelerator_scenario.StepResult(
                error=accelerator_scenario.ReportedError("READ_ERROR", 1, 64, "a sentence", 0),
                disturbed_burst=64,
            ),
            accelerator_scenario.StepResult(counters=COUNTERS, bursts={"read": [(64, 2)]}),
        ],
    ),
]


@pytest.mark.parametrize(
    "record", RECORDS, ids=lambda record: f"{type(record).__module__}.{type(record).__name__}"
)
def test_there_and_back(record, tmp_path):
    path = tmp_path / "record.json"
    save_dataclass(record, path)
    assert load_dataclass(type(record), path) == record


def test_a_file_of_another_shape_is_refused(tmp_path):
    path = tmp_path / "record.json"
    save_dataclass(RECORDS[2], path)
    content = json.loads(path.read_text())
    content["steps"][1]["disturb"] = "power_cut"
    path.write_text(json.dumps(content))
    with pytest.raises(ValidationError, match="disturb"):
        load_dataclass(accelerator_scenario.Scenario, path)

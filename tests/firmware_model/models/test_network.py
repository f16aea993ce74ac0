"""The integer network of `moving-digits`: its program is the model, its integers the contract's."""

from dataclasses import replace

import pytest
import torch

from firmware_model.calibration.layer_plan import LayerPlan
from firmware_model.calibration.layers import tile_config
from firmware_model.models.block_network import integer_blocks, observe, plan_network
from firmware_model.models.compiler import compile_network
from firmware_model.models.models import open_model
from firmware_model.models.names import OWN_CHECKPOINT
from firmware_model.models.network import IntegerNetwork, run_float, values_of
from firmware_model.models.network_formats import MARGIN, Ranges
from firmware_model.models.network_study import budgets, network_study
from firmware_model.models.video.pipeline import VideoPipeline
from firmware_model.models.video.program import (
    INPUT,
    video_items,
    video_parameters,
    video_steps,
)
from firmware_model.program import Activate, Attend, Kind, Linear, Normalize, Rotate, cut_program
from firmware_model.quality.metrics import psnr_db, snr_db
from paro.config import Config, ParoError
from paro.config.vector_formats import WORD_MAX
from tests.firmware_model.models.memory_player import MemoryPlayer
from tests.firmware_model.models.small_plans import layer_shape, plan_attention, plan_layer

QUEUE_CONFIG = Config(rows=16, cols=16, block=64, head_dim=32, vector_channels=512)


class Example:
    """One pass of the model in float, a plan at 8 bits, and the network that they make."""

    def __init__(self) -> None:
        self.pipeline = VideoPipeline(OWN_CHECKPOINT, steps=2)
        model, shape = self.pipeline.model, self.pipeline.shape
        generator = torch.Generator().manual_seed(1)
        video = torch.randn(1, 8, 16, 16, generator=generator)
        with torch.no_grad():
            self.tokens, self.modulation = model.embed(
                video, torch.tensor([0.6]), torch.tensor([3])
            )
            self.parameters = video_parameters(model, self.modulation[0])
            self.steps = video_steps(model.shape)
            self.ranges = Ranges()
            inputs = {INPUT: self.tokens[0]}
            self.exact = run_float(self.steps, inputs, self.parameters, self.ranges)
        layers = [self.layer(step) for step in self.steps if isinstance(step, Linear)]
        each = (shape.layers, shape.heads)
        self.plan = plan_attention(
            shape.layout,
            QUEUE_CONFIG,
            torch.arange(16).reshape(each) % 6,
            torch.full((1, *each, 8, 8), 3),
            model=self.pipeline.identity,
            linear=tuple(layers),
        )
        self.network = plan_network(self.pipeline, self.plan, self.ranges)
        self.integers = self.network.run(inputs, self.parameters)

    def layer(self, step: Linear) -> LayerPlan:
        """Plan of a layer at 8 bits, rounded to nearest."""
        layer, config = self.pipeline.linears[step.layer], tile_config(64, 32)
        codes = torch.full(layer_shape(layer, config), 3, dtype=torch.uint8)
        return plan_layer(step.layer, layer, self.exact[step.source], config, codes)

    def values(self, name: str) -> torch.Tensor:
        """Values of a tensor of the integer run."""
        found, made = self.integers[name], self.network.program.formats[name]
        if made.kind == Kind.BY_TOKEN:
            x8, mantissa = found
            found = x8.double() * mantissa.double().repeat_interleave(made.group, dim=1)
        return values_of(found, made)


@pytest.fixture(scope="module")
def example() -> Example:
    return Example()


def test_the_steps_in_float_are_the_model(example):
    model = example.pipeline.model
    with torch.no_grad():
        tokens = example.tokens
        for layer, block in enumerate(model.blocks):
            tokens = block(
                tokens,
                example.modulation.unsqueeze(1),
                model.rotation,
                lambda _, q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v),
                layer,
            )
    assert (example.exact[example.steps[-1].result] - tokens[0]).abs().max() < 2e-4


def test_every_step_is_near_float_of_what_it_read(example):
    """One word, and what INT8 rounds: no step may add more, whatever came before it."""
    formats = example.network.program.formats
    checked = 0
    for step in example.steps:
        read = {name: example.values(name) for name in step.reads}
        wanted = run_float((step,), read, example.parameters)[step.result].detach()
        got, made = example.values(step.result), formats[step.result]
        unit = torch.tensor(made.unit)
        if made.kind == Kind.BY_TOKEN:
            mantissa = example.integers[step.result][1]
            unit = unit * mantissa.repeat_interleave(made.group, dim=1)
        error = ((got - wanted).abs() / unit).max().item()
        bound = 3.0
        if isinstance(step, Activate):
            bound = 1 + 0.0004 / made.unit[0]
        if isinstance(step, Normalize):
            # The mean is off by a quarter of a word at most: so much of the least deviation.
            groups = example.integers[step.source].double().unflatten(1, (-1, step.group))
            bound = 1 + 0.26 / groups.std(dim=2).min().item() / made.unit[0]
        # Of layers and attention only that they are the right ones: their own tests are stricter.
        if not isinstance(step, Linear | Attend):
            assert error <= bound, (step, error)
            checked += 1
        assert snr_db(got, wanted) > 35, step
    assert checked > 60


def test_the_network_is_near_float(example):
    output = example.steps[-1].result
    assert snr_db(example.values(output), example.exact[output]) > 36


def test_formats_keep_their_margin(example):
    """Nothing saturates, little of the words is left unused, and no residual changes its unit."""
    program = example.network.program
    for step in example.steps:
        if program.formats[step.result].kind == Kind.WORDS:
            largest = example.integers[step.result].abs().max().item()
            assert WORD_MAX / 64 < largest < WORD_MAX, step
        if isinstance(step, Rotate):
            read, made = (program.formats[name] for name in (step.source, step.result))
            assert read.unit == made.unit
            assert bool(made.zero) == (".k." in step.result)
        if isinstance(step, Activate):
            layer = step.result.replace("active", "network.2")
            unit = program.formats[step.result].unit[0]
            assert example.network.layers[layer].input_unit == pytest.approx(unit / 508)
    residuals = {program.formats[name] for name in (INPUT, *program.outputs)}
    assert len(residuals) == 1
    largest = max(
        example.exact[name].abs().max().item()
        for name in example.exact
        if name == INPUT or name.endswith(".sum")
    )
    assert residuals.pop().unit[0] == pytest.approx(MARGIN * largest / WORD_MAX)


def test_a_video_through_the_network(example):
    """Two steps of the sampler, formats from all that the steps hold."""
    pipeline = example.pipeline
    ranges = observe(pipeline, (0,))
    network = plan_network(pipeline, example.plan, ranges)
    found = pipeline.generate(0, blocks=integer_blocks(pipeline, network))
    assert psnr_db(found, pipeline.generate(0)) > 30


def test_the_blocks_as_a_queue(example):
    """All tensors that the device has in memory, of both halves of a guidance, block by block."""
    model, program, network = example.pipeline.model, example.network.program, example.network
    items = video_items(
        model, example.tokens.repeat(2, 1, 1), torch.cat([example.modulation, -example.modulation])
    )
    first = replace(network, program=cut_program(program, (INPUT,), ("blocks.0.network.sum",)))
    device = compile_network(first, items, QUEUE_CONFIG)
    image = device.image(0x1000, reuse=False)
    memory = MemoryPlayer(QUEUE_CONFIG, device.tasks, image).play()
    for index, item in enumerate(items):
        wanted = first.run(item.inputs, item.parameters) if index else example.integers
        for name in device.tensors[index]:
            assert_same(device.integers(image, memory, index, name), wanted[name])
    # Of all blocks the output, where memory is used again.
    device = compile_network(network, items[:1], QUEUE_CONFIG)
    image = device.image()
    assert len(image.buffers.used) < 0.2 * image.buffers.without_reuse
    memory = MemoryPlayer(QUEUE_CONFIG, device.tasks, image).play()
    (output,) = program.outputs
    assert_same(device.integers(image, memory, 0, output), example.integers[output])


def assert_same(got, wanted):
    if isinstance(got, tuple):
        for one, other in zip(got, wanted, strict=True):
            assert_same(one, other)
    else:
        assert torch.equal(got, wanted)


def changed(example, **changes):
    return replace(example.plan, **changes)


def test_plans_that_the_device_cannot_run_are_refused(example):
    pipeline, plan, ranges = example.pipeline, example.plan, example.ranges
    first = plan.linear[0]
    cases = {
        "transforms channels of Q and K": {"transforms": torch.ones_like(plan.transforms)},
        "the plan lacks layer blocks.0.qkv": {"linear": plan.linear[1:]},
        "rotates the inputs of layer blocks.0.qkv": {
            "linear": (replace(first, rotation=32), *plan.linear[1:])
        },
        "of another model": {"model": "0" * 64},
    }
    for sentence, change in cases.items():
        with pytest.raises(ParoError, match=sentence):
            plan_network(pipeline, changed(example, **change), ranges)
    with pytest.raises(ParoError, match="was not observed; legal: run the steps in float first"):
        plan_network(pipeline, plan, Ranges())


def test_a_network_checks_its_layers(example):
    network = example.network
    kept = {"program": network.program, "attention": network.attention, "tokens": network.tokens}
    layers = dict(network.layers)
    with pytest.raises(ParoError, match=r"layer blocks.3.network.2 has no plan"):
        IntegerNetwork(layers={k: v for k, v in layers.items() if "3.network.2" not in k}, **kept)
    first = layers["blocks.0.qkv"]
    layers["blocks.0.qkv"] = replace(first, input_unit=2 * first.input_unit)
    with pytest.raises(ParoError, match=r"do not fit the plan of layer blocks.0.qkv; legal: its"):
        IntegerNetwork(layers=layers, **kept)


def test_budgets(example):
    eight, paper, half = budgets(example.pipeline)
    assert (paper.goal.avg_bits, paper.goal.weight_bits, paper.share) == (4.8, 4.0, 1.0)
    # 12 width^2 products of weights a token and block, 2 width tokens of attention.
    mean = (12 * 128 * 4 + 2 * 512 * 4.8) / (12 * 128 + 2 * 512)
    assert half.goal.shared
    assert half.goal.avg_bits == pytest.approx(mean / 2)
    assert (eight.share, half.share) == (pytest.approx(8 / mean), 0.5)


@pytest.mark.slow
def test_the_study():
    pipeline = VideoPipeline(OWN_CHECKPOINT, steps=10)
    done = []
    rows = network_study(
        pipeline, 1, budgets(pipeline)[:2], lambda count, total: done.append((count, total))
    )
    assert done == [(count, 7) for count in range(1, 8)]
    assert [row["between"] for row in rows] == ["integers", "float"] * 2
    assert all(row["psnr_db"] > 25 for row in rows)
    assert rows[0]["psnr_db"] != rows[1]["psnr_db"]


def test_own_model_is_the_pipeline_of_the_study():
    assert isinstance(open_model(OWN_CHECKPOINT), VideoPipeline)

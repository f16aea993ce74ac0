"""Vector steps of a queue on the vector unit itself, in simulation: token by token as a fetcher."""

import random
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from paro.config import Config
from paro.config.vector_program import SECOND_ROW, Added, Right
from rtl.vector.unit import VectorUnit
from tests.firmware_model.models.memory_player import Step
from tests.rtl.simulate import simulate
from tests.rtl.streams import Receiver, Sender
from tests.rtl.vector.passes import INPUTS
from tests.rtl.vector.rows import Streams

Beats = list[list[int]]


class _Pass:
    """A pass over one token: its command, and the beats that it takes and gives."""

    def __init__(self, step: Step, place: int, token: int, bank: int, lanes: int) -> None:
        own = step.passes[place]
        channels = step.words.shape[1]
        self.command = {
            **{name: value for name, value in own.items() if name not in ("others", "addends")},
            "bank": bank,
            "beats": channels // lanes - 1,
            "group": own["group"] // lanes - 1,
        }
        self.inputs: dict[str, Beats] = {name: [] for name in INPUTS}
        if own["loads"]:
            self.inputs["words"] = _beats(step.words[token], lanes)
        taken = sum(
            source == SECOND_ROW for earlier in step.passes[:place] for source in _sources(earlier)
        )
        for name, wanted in (
            ("others", own["right"] == Right.STREAM),
            ("addends", own["added"] == Added.STREAM),
        ):
            if wanted and own[name] == SECOND_ROW:
                part = step.second[token, taken * channels : (taken + 1) * channels]
                self.inputs[name] = _beats(part, lanes)
            elif wanted:
                self.inputs[name] = _beats(step.tables[own[name]], lanes)
        self.sent = _beats(step.outputs[token], lanes) if own["sends"] else []


def _sources(own: dict[str, int]) -> Iterator[int]:
    if own["right"] == Right.STREAM:
        yield own["others"]
    if own["added"] == Added.STREAM:
        yield own["addends"]


def _beats(words: np.ndarray, lanes: int) -> Beats:
    return words.astype(int).reshape(-1, lanes).tolist()


def step_streams(steps: Sequence[Step], tokens: range, config: Config) -> Streams:
    """Streams of some tokens of each step, two at a time, their passes by turns."""
    lanes, step_banks = config.vector_lanes, config.vector_rows // 2
    made = Streams(mantissas=tuple([] for _ in range(config.vector_rows)))
    for step in steps:
        for pair in zip_longest(tokens[::2], tokens[1::2]):
            both = [
                (half * step_banks, token) for half, token in enumerate(pair) if token is not None
            ]
            for place in range(len(step.passes)):
                for bank, token in both:
                    own = _Pass(step, place, token, bank, lanes)
                    made.commands.append(own.command)
                    for name in INPUTS:
                        made.inputs[name] += own.inputs[name]
                    made.sent += own.sent
            for bank, token in both if len(step.mantissas) else []:
                made.mantissas[bank].append(int(step.mantissas[token]))
    return made


def play_steps(config: Config, steps: Sequence[Step], tokens: range, rng: random.Random) -> int:
    """Play some tokens of each step; all that the unit gives is compared. Returns cycles."""
    unit = VectorUnit(config, config.vector_channels)
    play = step_streams(steps, tokens, config)
    senders = [
        Sender(getattr(unit, name), beats, rng, 0.0)
        for name, beats in {"commands": play.commands, **play.inputs}.items()
    ]
    receivers = [Receiver(port, rng, 0.0) for port in (unit.results, *unit.mantissas)]
    wanted = [play.sent, *play.mantissas]

    def taking(receiver: Receiver, count: int) -> Any:
        async def take(ctx: Any) -> None:
            await receiver.receive(ctx, count)

        return take

    takes = [taking(own, len(items)) for own, items in zip(receivers, wanted, strict=True)]
    simulate(unit, *takes, *(sender.send for sender in senders))
    assert [list(beat) for beat in receivers[0].items] == play.sent
    assert tuple(own.items for own in receivers[1:]) == play.mantissas
    return receivers[0].times[-1]

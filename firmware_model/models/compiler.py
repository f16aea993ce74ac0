"""The compiler: a network's steps as jobs of the accelerator's queue, and their buffers.

Vector steps that are made one from the other, and read by nothing else, are one job. Q and K are
jobs of each head, for each has mantissas of its own, in the order of the head that reads them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from firmware_model.cross import CrossHead
from firmware_model.host.jobs import HeadJob, HeadOperands
from firmware_model.host.schedule import interleave
from firmware_model.host.tasks import Buffer, Columns, Task
from firmware_model.host.vector_job import VectorJob
from firmware_model.models.device_program import DeviceProgram, Item, Stored
from firmware_model.models.network import IntegerNetwork
from firmware_model.models.vector_passes import VECTOR_STEPS, ChainPasses, chain_passes
from firmware_model.program import (
    Add,
    Attend,
    Attention,
    CrossAttend,
    Join,
    Kind,
    Linear,
    Normalize,
    Program,
    QuantizeTokens,
    Rotate,
    Rows,
    Step,
)
from firmware_model.program import Columns as ColumnsStep
from firmware_model.reference.jobs import layer_job
from firmware_model.reference.linear import QuantizedInputs
from firmware_model.reorder import token_permutation
from paro.config import Config
from paro.config.config import HEAD_DIMS, padded_head_dim
from paro.config.errors import ParoError
from paro.config.formats import LANES, OUT_BYTES, SCALE_BYTES

__all__ = ["check_heads", "compile_network"]


def check_heads(steps: Sequence[Step]) -> None:
    """Check that an accelerator can compute the heads of some steps.

    Heads that have fewer channels than those of any accelerator are filled up with zeros.

    Raises
    ------
    ParoError
        If they have too many channels, or if zeros among them would change what a step makes.
    """
    sizes = {step.head_dim for step in steps if isinstance(step, Attention)}
    for size in sorted(sizes):
        if size % LANES or size > HEAD_DIMS[-1]:
            raise ParoError(
                f"attention has heads of {size} channels, and no accelerator takes those; legal: "
                f"multiples of {LANES} up to {HEAD_DIMS[-1]}"
            )
    filled = sizes.difference(HEAD_DIMS)
    for step in steps:
        size, wrong = 0, ""
        if isinstance(step, Normalize) and step.centred:
            size, wrong = step.group, "has a LayerNorm of heads"
        elif isinstance(step, Rotate) and step.pairing == "halves":
            size, wrong = step.head_dim, "turns halves of heads"
        if size in filled:
            raise ParoError(
                f"{step.result} {wrong} that no accelerator has, and zeros up to "
                f"{padded_head_dim(size)} channels would change it; legal: heads of "
                f"{', '.join(map(str, HEAD_DIMS))}"
            )


def compile_network(
    network: IntegerNetwork, items: Sequence[Item], config: Config, progress: float = 0.0
) -> DeviceProgram:
    """Make the queue of a network.

    Parameters
    ----------
    network : IntegerNetwork
        The network, or a part of it (`program.cut_program`).
    items : sequence of Item
        Runs whose jobs are put into one queue, so that the array works for one while the vector
        unit does for another.
    config : Config
        The accelerator, with a vector unit.
    progress : float
        Share of the denoising steps that are done.

    Raises
    ------
    ParoError
        If the accelerator does not fit the network and its plans.
    """
    check_heads(network.program.steps)
    compilers = [
        _Compiler(network, item, config, progress, f"{index}.") for index, item in enumerate(items)
    ]
    queues = [compiler.tasks() for compiler in compilers]
    tasks = tuple(interleave(queues, config))
    return DeviceProgram(config, tasks, tuple(own.tensors for own in compilers))


@dataclass(eq=False)
class _Compiler:
    """Jobs of one item, and the tensors that they leave."""

    network: IntegerNetwork
    item: Item
    config: Config
    progress: float
    prefix: str
    tensors: dict[str, Stored] = field(default_factory=dict)
    queue: list[Task] = field(default_factory=list)
    #: Jobs of each head, of tensors of which no attention has read a head yet.
    waiting: dict[str, list[Task]] = field(default_factory=dict)

    @property
    def program(self) -> Program:
        return self.network.program

    @cached_property
    def counts(self) -> dict[str, int]:
        """Tokens of every tensor; a text has as many as are given."""
        text = self.item.inputs.get(self.network.text, ())
        return self.network.token_counts(len(text))

    @cached_property
    def heads(self) -> set[int]:
        """Channels of the heads of its attention."""
        return {step.head_dim for step in self.program.steps if isinstance(step, Attention)}

    @property
    def slack(self) -> int:
        """Channels that the accelerator's heads have more than any of the network's."""
        return self.config.head_dim - min(self.heads, default=self.config.head_dim)

    def _filled(self, group: int) -> int:
        """Words of a row that has one group of channels: a head is as long as the device's."""
        return self.config.head_dim if group in self.heads else group

    @cached_property
    def rows_in_front(self) -> dict[str, int]:
        """Of Q and the result of cross attention: rows before their own, which nobody uses."""
        return {
            name: self.counts[step.k]
            for step in self.program.steps
            if isinstance(step, CrossAttend)
            for name in (step.source, step.result)
        }

    @cached_property
    def mantissas_in_front(self) -> dict[str, int]:
        """Of K of cross attention: mantissas before its own, which nobody uses."""
        return {
            step.k: self._cross_head(step).first_key
            for step in self.program.steps
            if isinstance(step, CrossAttend)
        }

    def _cross_head(self, step: CrossAttend) -> CrossHead:
        block = self.network.attention.block
        return CrossHead(self.counts[step.source], self.counts[step.k], block)

    @cached_property
    def joined(self) -> dict[str, tuple[str, int]]:
        """Of what is joined to others: the tensor that it lies in, and its first token there."""
        found = {}
        for step in self.program.steps:
            first = 0
            for name in step.reads if isinstance(step, Join) else ():
                found[name] = step.result, first
                first += self.counts[name]
        return found

    def tasks(self) -> list[Task]:
        for name, words in self.network.input_words(self.item.inputs).items():
            self._check_rows(name, len(words))
            self._input(name, words)
        chains = {chain[-1].result: chain for chain in self._chains()}
        for step in self.program.steps:
            if isinstance(step, ColumnsStep | Rows):
                self._part(step)
            elif isinstance(step, Linear):
                self._linear(step)
            elif isinstance(step, Attend):
                self._attend(step)
            elif isinstance(step, CrossAttend):
                self._cross_attend(step)
            elif step.result in chains:
                self._vector(chains[step.result])
        return self.queue

    def _check_rows(self, name: str, rows: int) -> None:
        if rows != self.counts[name]:
            raise ParoError(
                f"input {name} has {rows} tokens; legal: the network's {self.counts[name]}"
            )

    def _input(self, name: str, words: torch.Tensor) -> None:
        rows = np.pad(words.to(torch.int16).numpy(), ((0, 0), (0, self.slack)))
        made = self.program.formats[name]
        buffer = Buffer(self.prefix + name, len(rows), rows[0].nbytes, content=rows)
        self.tensors[name] = Stored(Columns(buffer), made, len(rows))

    def _store(self, name: str, *, channels: int = 0) -> Stored:
        """Room for a tensor, of more channels than it has where more are written."""
        if name in self.joined:
            whole, first = self.joined[name]
            stored = self.tensors[whole] if whole in self.tensors else self._store(whole)
            stored = replace(stored, columns=stored.rows(first), tokens=self.counts[name])
            self.tensors[name] = stored
            return stored
        made = self.program.formats[name]
        word = OUT_BYTES if made.kind == Kind.WORDS else 1
        padding = self._filled(made.group) - made.group
        parts = {part for part, (whole, _) in self.joined.items() if whole == name}
        kept = not parts.union({name}).isdisjoint(self.program.outputs)
        filled = padding * (made.channels // max(made.group, 1))
        # A job that takes a head takes the words behind it too.
        row_bytes = word * max(channels, made.channels + (filled or self.slack))
        count, front = self.counts[name], self.rows_in_front.get(name, 0)
        buffer = Buffer(self.prefix + name, front + count, row_bytes, kept=kept)
        stored = Stored(Columns(buffer, token=front), made, count, padding=padding)
        self.tensors[name] = stored
        return stored

    def _part(self, step: ColumnsStep | Rows) -> None:
        read = self.tensors[step.source]
        if read.mantissas:
            raise ParoError(
                f"{step.result} is a part of {step.source}, which has mantissas; legal: a part of "
                "words"
            )
        columns = read.rows(step.first) if isinstance(step, Rows) else read.part(step.first)
        made = self.program.formats[step.result]
        self.tensors[step.result] = Stored(columns, made, self.counts[step.result])

    def _linear(self, step: Linear) -> None:
        plan = self.network.layers[step.layer]
        plan.check_config(self.config)
        read = self.tensors[step.source]
        inputs = QuantizedInputs(
            torch.zeros(1, 1, dtype=torch.int8).expand(read.tokens, plan.inputs),
            torch.zeros(1, dtype=torch.int32).expand(read.tokens),
            plan.input_unit,
        )
        block = self.config.block
        made = self._store(step.result, channels=self.config.blocks_of(plan.outputs) * block)
        self.queue.append(
            Task(
                layer_job(inputs, plan.weights, plan.output),
                output=made.columns,
                inputs={"q": read.columns, "q_scales": read.mantissas[0]},
            )
        )

    def _attend(self, step: Attend) -> None:
        self._check_heads(step)
        plan = self.network.attention_plan(step, self.progress)
        q, k, v = (self.tensors[name] for name in step.reads)
        made, tokens = self._store(step.result), self.network.tokens
        ready = [self.waiting.pop(name, []) for name in dict.fromkeys((step.source, step.k))]
        for head in range(q.format.channels // step.head_dim):
            order = plan.head_order(head)
            permutation = self.network.permutation(order).numpy()
            job = HeadJob(
                HeadOperands.in_buffers(permutation, order, self.config.head_dim),
                plan.head_codes(head).numpy(),
                tokens.grid,
                tokens.prefix,
                tokens.suffix,
            )
            first = head * step.head_dim
            inputs = {"q": q.part(first), "k": k.part(first), "v": v.part(first)}
            for name, own in (("q_scales", q), ("k_scales", k)):
                inputs[name] = own.mantissas[head]
            # Q and K of a head right before it: the array begins while those of the next are made.
            self.queue += [tasks[head] for tasks in ready if tasks]
            self.queue.append(Task(job, output=made.part(first), inputs=inputs))

    def _cross_attend(self, step: CrossAttend) -> None:
        """Heads of both tokens: rows of queries begin where the keys in front of them do."""
        self._check_heads(step)
        cross = self._cross_head(step)
        q, k, v = (self.tensors[name] for name in step.reads)
        made, tokens = self._store(step.result), cross.tokens
        permutation = token_permutation(tokens.grid, tokens.prefix, 0)
        job = HeadJob(
            HeadOperands.in_buffers(permutation, 0, self.config.head_dim),
            cross.codes,
            tokens.grid,
            tokens.prefix,
            query_blocks=cross.query_blocks,
            query_tokens=cross.queries,
        )
        for head in range(q.format.channels // step.head_dim):
            first = head * step.head_dim
            inputs = {
                "q": replace(q.part(first), token=0),
                "k": k.part(first),
                "v": v.part(first),
                "q_scales": q.mantissas[head],
                "k_scales": replace(k.mantissas[head], token=0),
            }
            output = replace(made.part(first), token=0)
            self.queue.append(Task(job, output=output, inputs=inputs))

    def _check_heads(self, step: Attention) -> None:
        """Refuse heads that are not the accelerator's."""
        block, config = self.network.attention.block, self.config
        if (padded_head_dim(step.head_dim), block) != (config.head_dim, config.block):
            raise ParoError(
                f"{step.result} is of heads of {step.head_dim} channels and blocks of {block} "
                f"tokens; legal on this accelerator: up to {config.head_dim}, and {config.block}"
            )

    def _chains(self) -> list[tuple[Step, ...]]:
        """Vector steps, those together that one job computes."""
        readers: dict[str, list[Step]] = {}
        for step in self.program.steps:
            for name in step.reads:
                readers.setdefault(name, []).append(step)
        chains: list[tuple[Step, ...]] = []
        done: set[str] = set()
        for step in self.program.steps:
            if not isinstance(step, VECTOR_STEPS) or step.result in done:
                continue
            chain: tuple[Step, ...] = (step,)
            while following := self._following(chain[-1], readers):
                longer = (*chain, following)
                if not self._is_alike(longer) or not self._passes(longer, 0).fits:
                    break
                chain = longer
            done |= {own.result for own in chain}
            chains.append(chain)
        return chains

    def _following(self, step: Step, readers: Mapping[str, Sequence[Step]]) -> Step | None:
        """Vector step that alone reads a step's result, and makes its own of it."""
        name = step.result
        if len(readers.get(name, ())) != 1 or name in self.program.outputs:
            return None
        (reader,) = readers[name]
        is_made = isinstance(reader, VECTOR_STEPS) and reader.source == name
        return reader if is_made else None

    def _group(self, chain: Sequence[Step]) -> int:
        """Channels of a row of a chain: those that share a mantissa, or all."""
        made = self.program.formats[chain[-1].result]
        return made.group if isinstance(chain[-1], QuantizeTokens) else made.channels

    def _is_alike(self, chain: Sequence[Step]) -> bool:
        """Whether every step of a chain works on each row by itself."""
        if self._width(chain) != self._group(chain) and any(isinstance(s, Add) for s in chain):
            return False  # What stands behind a head of the residual would be added to zeros.
        sizes = [step.group for step in chain if isinstance(step, Normalize)]
        sizes += [step.head_dim for step in chain if isinstance(step, Rotate)]
        return all(self._group(chain) % size == 0 for size in sizes)

    def _passes(self, chain: Sequence[Step], row: int) -> ChainPasses:
        group = self._group(chain)
        channels = slice(row * group, (row + 1) * group)
        width = self._width(chain)
        return chain_passes(self.network, self.item.parameters, chain, channels, width)

    def _width(self, chain: Sequence[Step]) -> int:
        """Words of a row of a chain."""
        group = self._group(chain)
        return self._filled(group) if isinstance(chain[-1], QuantizeTokens) else group

    def _vector(self, chain: Sequence[Step]) -> None:
        """Jobs of a chain: one, or one of each head, which wait for what reads that."""
        read, group, name = self.tensors[chain[0].source], self._group(chain), chain[-1].result
        width = self._width(chain)
        made = self._store(name)
        orders = self._orders(name, made.format.channels // group)
        tasks = []
        for row, order in enumerate(orders):
            first, passes = row * group, self._passes(chain, row)
            inputs = {"q": read.part(first)}
            second: np.ndarray | None = None
            for own in passes.seconds:
                if isinstance(own, str):
                    inputs["v"] = self.tensors[own].part(first)
                    second = self._in_buffer(read.tokens, width)
                else:
                    second = own
            job = VectorJob(
                passes=passes.passes,
                rows=self._in_buffer(read.tokens, width),
                tables=passes.tables,
                second=second,
                **self._walk(order, read.tokens),
            )
            found: Columns | None = None
            if job.finds_mantissas:
                kept = name in self.program.outputs
                own_name = f"{self.prefix}{name} mantissas {row}"
                front = self.mantissas_in_front.get(name, 0)
                buffer = Buffer(own_name, front + read.tokens, SCALE_BYTES, kept=kept)
                found = Columns(buffer, token=front)
            tasks.append(Task(job, output=made.part(first), inputs=inputs, mantissas=found))
        mantissas = tuple(task.mantissas for task in tasks if task.mantissas is not None)
        if mantissas:
            permutations = tuple(self._permutation(order, read.tokens) for order in orders)
            self.tensors[name] = replace(made, mantissas=mantissas, orders=permutations)
        if None in orders:
            self.queue += tasks
        else:
            self.waiting[name] = tasks

    def _in_buffer(self, tokens: int, channels: int) -> np.ndarray:
        """Rows whose words an earlier job makes."""
        return np.broadcast_to(np.int16(0), (tokens, channels))

    def _orders(self, name: str, rows: int) -> list[int | None]:
        """Order in which what reads a tensor takes each row's mantissas; none: the natural one."""
        readers = [step for step in self.program.steps if name in step.reads]
        wanted: set[tuple[int | None, ...]] = set()
        for step in readers:
            if isinstance(step, Attend) and name != step.v:
                plan = self.network.attention_plan(step, self.progress)
                wanted.add(tuple(plan.head_order(head) for head in range(rows)))
            else:
                wanted.add((None,) * rows)
        if len(wanted) > 1:
            raise ParoError(
                f"what reads {name} takes its mantissas in several orders; legal: one order"
            )
        return list(wanted.pop()) if wanted else [None] * rows

    def _walk(self, order: int | None, count: int) -> dict[str, Any]:
        """Walk over all tokens in an order, or over ``count`` in the natural one."""
        tokens = self.network.tokens
        if order is None:
            return {"grid": (1, 1, count)}
        return {
            "grid": tokens.grid,
            "prefix_tokens": tokens.prefix,
            "suffix_tokens": tokens.suffix,
            "order": order,
        }

    def _permutation(self, order: int | None, count: int) -> np.ndarray:
        if order is None:
            return np.arange(count)
        return self.network.permutation(order).numpy()

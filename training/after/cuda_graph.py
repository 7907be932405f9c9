"""Decoding on a GPU without launching each kernel from Python.

The forward pass of one token launches thousands of small kernels, which takes the processor several times as long as the
GPU needs to compute them. A CUDA graph records the launches once; each further token replays it. Everything that the graph
reads stays in one place: the cache has its full length from the beginning, and inputs are copied into tensors of the graph.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from training.model.attention import without_adapters

if TYPE_CHECKING:
    from torch import Tensor

WARM_PASSES = 2  # before the recorded one: libraries choose kernels and allocate workspaces in the first


@contextmanager
def graphed_decoding(model: Any, length: int) -> Iterator[dict[str, Any]]:
    """Yield arguments of transformers' `generate` with which single tokens replay a CUDA graph for the duration of the block.

    They are empty, and `generate` works as usual, on a CPU, with several processes, and for models whose forward pass
    decides anything by the values of tensors or by Python's own counters (sliding windows, recurrent states).

    Args:
        model: a peft model or a transformers model, in evaluation mode.
        length: of the longest sequence, prompt and answer, in tokens.
    """
    import torch

    base = without_adapters(model)
    alone_on_gpu = base.device.type == "cuda" and not torch.distributed.is_initialized()
    cache = _static_cache(base, length) if alone_on_gpu else None
    if cache is None:
        yield {}
        return
    before = vars(base).get("forward")
    base.forward = GraphedForward(base.forward, cache)
    try:
        yield {"past_key_values": cache, "disable_compile": True}
    finally:
        if before is None:
            del base.forward
        else:
            base.forward = before


def _static_cache(base: Any, length: int) -> Any | None:
    """A cache of fixed length, if the model's forward pass can be recorded with it."""
    from transformers.cache_utils import StaticCache, StaticLayer

    if not base._can_compile_fullgraph:
        return None
    cache = StaticCache(config=base.config, max_cache_len=length)
    return cache if all(type(layer) is StaticLayer for layer in cache.layers) else None


class GraphedForward:
    """A model's forward pass: recorded at the first call with single tokens, and replayed at each further one."""

    def __init__(self, forward: Any, cache: Any) -> None:
        self.forward, self.cache = forward, cache
        self.__signature__ = inspect.signature(forward)  # transformers passes positions to a forward that takes them
        self.graph: Any = None
        self.arguments: dict[str, Any] = {}  # of the recorded call; its tensors are those that the graph reads
        self.output: Any = None  # of the graph; each replay writes its logits again
        self.fails = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the model's output, whose logits are valid until the next call."""
        ids = kwargs.get("input_ids")
        if args or ids is None or ids.shape[1] > 1 or self.fails:
            return self.forward(*args, **kwargs)
        if self.graph is None:
            self._record(kwargs)
        if self.fails or not self._set_inputs(kwargs):
            return self.forward(**kwargs)
        self.graph.replay()
        return self.output

    def _record(self, arguments: dict[str, Any]) -> None:
        import torch

        self.arguments = _copied(arguments)
        lengths = [layer.cumulative_length.clone() for layer in self.cache.layers]
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        try:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_PASSES):
                    self.forward(**self.arguments)
                    self._set_lengths(lengths)  # each pass writes the same place of the cache
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.output = self.forward(**self.arguments)
            self.graph = graph
        except RuntimeError:  # an operation that cannot be recorded, or too little memory: decoding goes on without
            self.fails = True
            torch.cuda.synchronize()
            self._set_lengths(lengths)

    def _set_lengths(self, lengths: list[Tensor]) -> None:
        for layer, length in zip(self.cache.layers, lengths, strict=True):
            layer.cumulative_length.copy_(length)

    def _set_inputs(self, arguments: dict[str, Any]) -> bool:
        """Copy tensors into those of the graph; false if the call is not the recorded one with other values."""
        ours, theirs = dict(_tensors(self.arguments)), dict(_tensors(arguments))
        if {name: tensor.shape for name, tensor in ours.items()} != {name: part.shape for name, part in theirs.items()}:
            return False
        for name, tensor in ours.items():
            tensor.copy_(theirs[name])
        return True


def _copied(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The same arguments with copies of their tensors."""
    import torch

    return {
        name: value.clone() if isinstance(value, torch.Tensor) else _copied(value) if isinstance(value, dict) else value
        for name, value in arguments.items()
    }


def _tensors(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors among arguments, also those of masks by layer type, with their names."""
    import torch

    for name, value in arguments.items():
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, dict):
            yield from ((f"{name}.{inner}", tensor) for inner, tensor in _tensors(value))

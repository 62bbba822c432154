# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""From a module to an ONNX graph of standard operators."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir
import torch
from onnx_ir.passes import common as passes
from torch import Tensor, nn
from torch.export import Dim

from mmlightvit.deploy.block_graph import write_block
from mmlightvit.deploy.window_order import CALL, BlockCall

OPSET = 20


def to_onnx(
    module: nn.Module,
    example: tuple[Tensor, ...],
    dynamic: Sequence[Mapping[int, str]],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> ir.Model:
    """Export a module.

    Args:
        module: In eval mode; each :class:`BlockCall` in it becomes the nodes of its block.
        example: Its arguments. A dimension of 1, or one that needs no padding, would be taken for the only one.
        dynamic: For each argument, the names of the dimensions that may differ.
        inputs, outputs: Names.

    Returns:
        One graph of opset 20, without functions.
    """
    calls = [call for call in module.modules() if isinstance(call, BlockCall)]
    for index, call in enumerate(calls):
        call.index = index
    shapes = tuple(dict.fromkeys(axes, Dim.DYNAMIC) for axes in dynamic)
    with torch.no_grad(), silence():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=shapes,
            input_names=list(inputs),
            output_names=list(outputs),
            verbose=False,
        )
    assert program is not None
    model = program.model
    for node in [node for node in model.graph if f'{node.domain}::{node.op_type}' == CALL]:
        put_block(model.graph, node, calls[node.attributes['index'].as_int()])
    model.opset_imports.pop(CALL.partition('::')[0], None)
    passes.CommonSubexpressionEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    for value, axes in zip(model.graph.inputs, dynamic):
        assert value.shape is not None
        value.shape = ir.Shape(axes.get(i, size) for i, size in enumerate(value.shape))
    return model


def put_block(graph: ir.Graph, node: ir.Node, call: BlockCall) -> None:
    """The nodes of a block in the place of its call."""
    x, real = (*node.inputs, None)[:2]
    assert x is not None
    index = node.attributes['index'].as_int()
    tape, out = write_block(call.block, call.num_tokens, x, real, f'blocks.{index}')
    for value in tape.initializers:
        graph.register_initializer(value)
    graph.insert_before(node, tape.nodes)
    node.outputs[0].replace_all_uses_with(out)
    graph.remove(node, safe=True)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Without the exporter's remarks, which are about its own insides."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(previous)

"""Record a tensor function once as a flat graph, so that Pyro and Python leave the inner loop.

A dispatch mode watches the operations that run; those that read the input become nodes of a ``torch.fx`` graph, all
others are constants. Replaying the graph gives the same bits at the same input, and at other inputs wherever the
function's control flow does not depend on them, which ``record`` checks at other values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


class NotRecordable(RuntimeError):
    """The function does something at run time that a fixed graph cannot repeat."""


class _WritesInPlace(NotRecordable):
    """Mended by torch.func.functionalize, which turns writes into new tensors."""


class _Recorder(TorchDispatchMode):
    def __init__(self, *inputs: Tensor) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.constants: dict[str, Tensor] = {}
        self._nodes: dict[int, fx.Node] = {id(x): self.graph.placeholder(f"z{i}") for i, x in enumerate(inputs)}
        self._alive: list[Any] = list(inputs)  # ids stay unique only while the tensors live

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch.compile never runs in here; True would import the compiler, which takes a second

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        # Ones are ones whatever the input is: so the gradient of a total does not keep the total alive.
        if func is not torch.ops.aten.ones_like.default and any(map(self._reads_input, tree_leaves((args, kwargs)))):
            func = _RESHAPES.get(func, func)
            self._check_repeatable(func, args)
            func, args = _batchable(func, args)
            node = self.graph.call_function(func, *tree_map(self.node, (args, kwargs)))
            self._track(out, node)
        return out

    def _reads_input(self, x: Any) -> bool:
        """Whether a tensor was made from the input; a constant that an operation on the input used was not."""
        node = self._nodes.get(id(x)) if isinstance(x, Tensor) else None
        return node is not None and node.op != "get_attr"

    def node(self, x: Any) -> Any:
        """Return the node of a tensor: the one that made it, or a constant."""
        if not isinstance(x, Tensor):
            return x
        if id(x) not in self._nodes:
            name = f"c{len(self.constants)}"
            self.constants[name] = x.detach()
            self._nodes[id(x)] = self.graph.create_node("get_attr", name)
            self._alive.append(x)
        return self._nodes[id(x)]

    def _check_repeatable(self, func: Any, args: Any) -> None:
        if func._schema.is_mutable:
            raise _WritesInPlace(f"{func} changes a tensor in place")
        if func is torch.ops.aten._local_scalar_dense.default:
            raise NotRecordable("a latent value is turned into a Python number, so control flow may depend on it")
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise NotRecordable(f"{func} draws random numbers")
        fixed = func is torch.ops.aten.index.Tensor and not any(map(self._is_mask, args[1]))
        if torch.Tag.dynamic_output_shape in func.tags and not fixed:
            raise NotRecordable(f"the shape that {func} returns depends on a latent value")

    def _is_mask(self, index: Any) -> bool:
        """Whether an index depends on the input and picks as many entries as it has true ones."""
        return self._reads_input(index) and index.dtype in (torch.bool, torch.uint8)

    def _track(self, out: Any, node: fx.Node) -> None:
        if isinstance(out, Tensor):
            self._nodes[id(out)] = node
            self._alive.append(out)
        elif isinstance(out, (tuple, list)):
            for i, part in enumerate(out):
                self._track(part, self.graph.call_function(operator.getitem, (node, i)))


_RESHAPES = {  # these change no number, only how the tensor they return is seen
    torch.ops.aten.squeeze_.dim: torch.ops.aten.squeeze.dim,
    torch.ops.aten.squeeze_.default: torch.ops.aten.squeeze.default,
    torch.ops.aten.unsqueeze_.default: torch.ops.aten.unsqueeze.default,
}


def _logits_loss(x: Tensor, y: Tensor, *_: Any) -> Tensor:
    """Binary cross entropy with logits, as torch computes it but without writing in place."""
    return (1 - y) * x - torch.nn.functional.logsigmoid(x)


def _select_scatter(x: Tensor, source: Tensor, dim: int, index: int) -> Tensor:
    """Return x with ``source`` at one index of a dimension."""
    size = x.shape[dim]
    here = torch.arange(size, device=x.device) == index % size
    return torch.where(here.reshape([-1 if d == dim % x.ndim else 1 for d in range(x.ndim)]), source.unsqueeze(dim), x)


def _fills_by_mask(args: Any) -> bool:
    """Whether an ``index_put`` writes one number where a mask of the tensor's own shape is true."""
    indices, values = args[1], args[2]
    accumulates = len(args) > 3 and args[3]
    mask = indices[0] if len(indices) == 1 else None
    return (
        mask is not None
        and mask.dtype is torch.bool
        and mask.shape == args[0].shape
        and (values.numel() == 1 and not accumulates)
    )


def _batchable(func: Any, args: Any) -> tuple[Any, Any]:
    """Replace operations that vmap cannot run, or runs in many pieces, by equal ones."""
    if func is torch.ops.aten.binary_cross_entropy_with_logits.default and args[2:] == (None, None, 0):
        return _logits_loss, args
    if func is torch.ops.aten.index_put.default and _fills_by_mask(args):
        return torch.ops.aten.where.self, (args[1][0], args[2], args[0])
    if func is torch.ops.aten.select_scatter.default:  # torch's own has a wrong gradient under vmap
        return _select_scatter, args
    if func is torch.ops.aten.copy.default:  # without mutation it only spreads its source
        return torch.ops.aten.expand.default, (args[1], list(args[0].shape))
    if func is torch.ops.aten.slice_scatter.default and len(args) > 4 and args[4] is not None and args[4] < 0:
        return func, (*args[:4], args[4] + args[0].shape[args[2]], *args[5:])
    return func, args


def _recorded(f: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    recorder = _Recorder(*inputs)
    with recorder:
        out = f(*inputs)
    recorder.graph.output(tree_map(recorder.node, out))
    _share_repeated(recorder.graph)
    recorder.graph.eliminate_dead_code()
    used = {n.target for n in recorder.graph.nodes if n.op == "get_attr"}
    root = torch.nn.Module()
    for name in used:
        root.register_buffer(str(name), recorder.constants[str(name)])
    return fx.GraphModule(root, recorder.graph)


def _share_repeated(graph: fx.Graph) -> None:
    """Let operations that stand twice in a graph, on the same arguments, run once."""
    seen: dict[str, fx.Node] = {}
    for node in graph.nodes:
        if node.op == "call_function":
            first = seen.setdefault(repr((str(node.target), node.args, node.kwargs)), node)
            if first is not node:
                node.replace_all_uses_with(first)


def _functionalised(f: Callable[..., Any], inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """Record a function whose writes became new tensors; one that holds autograd functions of its own cannot be."""
    try:
        return _recorded(f, inputs)
    except NotRecordable:
        raise
    except RuntimeError as error:
        raise NotRecordable(f"it writes in place in a way that cannot be undone ({str(error)[:60]}…)") from error


def record(
    f: Callable[..., Any], *inputs: Tensor, again: tuple[Tensor, ...] | None = None, mend: bool = True
) -> fx.GraphModule:
    """Return ``f`` as a flat graph of tensor operations.

    Args:
        f: a function of tensors that returns a tensor, or a tuple of tensors.
        inputs: where to record; at other values the graph must give what ``f`` gives.
        again: other values, at which the graph must give what ``f`` gives; None adds 0.37 to the inputs, which integers
            do not allow; an empty tuple spares the comparison, for functions that are known to have no control flow.
        mend: turn writes in place into new tensors; inside a vmap this would import the compiler.

    Raises:
        NotRecordable: if ``f`` branches on its input, writes in place, or draws random numbers.

    Example:
        >>> import torch
        >>> graph = record(lambda z: (2 * z).exp().sum(), torch.zeros(3))
        >>> graph(torch.ones(3))
        tensor(22.1672)
    """
    detached = tuple(x.detach().clone() for x in inputs)
    try:
        first = _recorded(f, detached)
    except _WritesInPlace:
        if not mend:
            raise
        f = torch.func.functionalize(f)
        first = _functionalised(f, detached)
    if again == ():
        return first
    other = again or tuple(x + 0.37 for x in detached)
    if not _agree(first(*other), f(*other)):
        raise NotRecordable("the recorded graph gives other numbers than the program at other values")
    return first


def _agree(a: Any, b: Any) -> bool:
    """Whether two results are the same, up to rounding; infinities and NaN are those of the function."""
    pairs = list(zip(tree_leaves(a), tree_leaves(b)))
    tensors = [(x, y) for x, y in pairs if isinstance(x, Tensor) and isinstance(y, Tensor)]
    return len(tensors) == len(tree_leaves(b)) and all(
        x.shape == y.shape and torch.allclose(x.detach(), y.detach(), rtol=1e-5, atol=1e-8, equal_nan=True)
        for x, y in tensors
    )

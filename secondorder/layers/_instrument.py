"""Instrumented runs of a model: one pass forward, one backward, statistics of every layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from secondorder import checks, meshes, tree
from secondorder.layers._analysis import MOVES, PIECES, SAME, Reading
from secondorder.layers._blocks import Block, Layout
from secondorder.layers._grouping import Group, group
from secondorder.layers._jaxpr import alive, bind, is_literal, opened, programs, scan_counts
from secondorder.layers._reader import read_program
from secondorder.layers._statistics import Use, statistics
from secondorder.layers._uses import Site
from secondorder.tree import Params

Path = tuple[int, ...]
OUTPUT = -1  # in place of an equation's number, for the factors of returned leaves


class Instrumented(NamedTuple):
    """Result of :func:`instrumented`.

    Attributes:
      outputs: the model's outputs.
      pull: ``cotangent ↦ (gradients, statistics)``; statistics are one tuple of :class:`Use` per
        block, empty for a fallback.
      returned: ``cotangent ↦`` for each block the mean square of the part of its gradients from
        leaves that the model returns; ``None`` where it returns none.
    """

    outputs: Any
    pull: Callable[[Any], tuple[Params, tuple[tuple[Use, ...], ...]]]
    returned: Callable[[Any], tuple[jax.Array | None, ...]]


@jax.custom_jvp
def _tap(y: jax.Array, t: jax.Array) -> jax.Array:
    """``y`` with the derivatives of ``y + t``, for ``t`` zero, without the addition."""
    return y


@_tap.defjvp
def _tap_jvp(primals, tangents):
    y, (dy, dt) = primals[0], tangents
    return y, dy + meshes.placed_like(dt, y)


def analyse(model: Callable, params: Params) -> tuple[Any, Reading, list[Group], Any]:
    """The program of a model, the uses of its leaves, their groups, and its outputs' tree."""
    leaves, structure = jax.tree.flatten(params)
    checked = checks.arrays(model, "The reading of layers", integers=True)
    flat = lambda *xs: checked(jax.tree.unflatten(structure, xs))
    closed, outputs = jax.make_jaxpr(flat, return_shape=True)(*leaves)
    reading = read_program(closed)
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(params)]
    groups = group(reading, [jnp.shape(leaf) for leaf in leaves], paths)
    return closed, reading, groups, jax.tree.structure(outputs)


def read(model: Callable[[Params], Any], params: Params) -> Layout:
    """The layout of the parameters in blocks (layers), found in the model's program.

    Nothing is computed. Leaves are followed through ``jit``, ``checkpoint``, ``vmap``, ``scan``,
    casts, transposes and reshapes. A leaf with one use that cannot be analysed is a fallback, with
    the reason.

    Args:
      model: ``params ↦ outputs``, closing over its batch, such as ``objective.model``.
      params: arrays or ``ShapeDtypeStruct``s.

    Example:
      >>> import jax.numpy as jnp
      >>> from secondorder import layers
      >>> x, params = jnp.ones((5, 3)), {"b": jnp.zeros(2), "w": jnp.ones((3, 2))}
      >>> (block,) = layers.read(lambda p: jnp.tanh(x @ p["w"] + p["b"]), params).blocks
      >>> block.kind, block.shape, block.leaves
      ('dense', (1, 4, 2), (1, 0))
    """
    _, _, groups, _ = analyse(model, params)
    paths = tuple(jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(params))
    return Layout(tuple(g.block for g in groups), paths)


def instrumented(model: Callable[[Params], Any], params: Params, layout: Layout) -> Instrumented:
    """The model's outputs, and a backward pass that also returns every layer's statistics.

    One forward pass now, one backward pass at each ``pull``. For every block except fallbacks,

        Σ_uses Σ_n Σ_t inputs[s,n,t,:] ⊗ sensitivities[s,n,t,:] = block.join(gradients)[s]

    with N the examples along the outputs' leading axis and T the positions that share the weights;
    where the examples cannot be followed to a layer, all its positions are examples, as its reason
    states. Scales, shifts and lone biases are summed over T and uses, so their sensitivities are
    gradients of single examples. The sums do not include leaves that the model returns, as for a
    penalty. Statistics are in at least float32.

    Args:
      model: as in :func:`read`.
      params: arrays.
      layout: from :func:`read`, of the same model on any batch.

    Raises:
      ValueError: the model uses its parameters in another way than the layout's model.

    Example:
      >>> import jax.numpy as jnp
      >>> from secondorder import layers
      >>> x, w = jnp.arange(6.0).reshape(3, 2), jnp.ones((2, 4))
      >>> model = lambda w: x @ w
      >>> outputs, pull, _ = layers.instrumented(model, w, layers.read(model, w))
      >>> grad, ((use,),) = pull(jnp.ones((3, 4)))
      >>> use.inputs.shape, use.sensitivities.shape
      ((1, 3, 1, 2), (1, 3, 1, 4))
    """
    closed, reading, groups, structure = analyse(model, params)
    _check(layout, groups)
    plan = _Plan.of(reading, groups)
    jaxpr, constants = opened(closed)
    # Constants may still be NumPy's float64, where the program expects float32.
    constants = [
        jnp.asarray(c, v.aval.dtype) if isinstance(c, np.ndarray) else c
        for c, v in zip(constants, jaxpr.constvars, strict=True)
    ]
    leaves, params_tree = jax.tree.flatten(params)
    taps = {path: jnp.zeros(s.shape, s.dtype) for path, s in plan.sites.items()}

    def run(leaves: list, taps: dict) -> tuple[Any, dict]:
        outputs, records = _evaluate(plan, jaxpr, constants, leaves, (), taps)
        return jax.tree.unflatten(structure, outputs), records

    outputs, back, records = jax.vjp(run, leaves, taps, has_aux=True)

    def pull(cotangent: Any) -> tuple[Params, tuple[tuple[Use, ...], ...]]:
        grads, slopes = back(cotangent)
        uses = tuple(statistics(g, records, slopes) for g in groups)
        return jax.tree.unflatten(params_tree, grads), uses

    def returned(cotangent: Any) -> tuple[jax.Array | None, ...]:
        slopes = jax.tree.leaves(cotangent)
        part = lambda k: _square(slopes[k], records[OUTPUT, k])
        return tuple(_mean_square(g.block, reading.returned, part) for g in groups)

    return Instrumented(outputs, pull, returned)


def _mean_square(
    block: Block, returned: dict[int, list[int]], part: Callable[[int], jax.Array]
) -> jax.Array | None:
    """The sum of ``part`` over the outputs that are leaves of a block, divided by its size."""
    numbers = [k for leaf in block.leaves for k in returned.get(leaf, ())]
    if not block.returned:
        return None
    return sum(map(part, numbers)) / math.prod(block.shape)  # pyright: ignore[reportReturnType]


def _square(slope: jax.Array, factor: jax.Array | None) -> jax.Array:
    slope = jnp.asarray(slope, tree.accumulation_dtype(slope.dtype))
    return jnp.sum((slope if factor is None else slope * factor.astype(slope.dtype)) ** 2)


def _check(layout: Layout, groups: Sequence[Group]) -> None:
    """Raise a ``ValueError`` if the layout belongs to another model."""
    by_leaf = lambda blocks: {leaf: block for block in blocks for leaf in block.leaves}
    then, now = by_leaf(layout.blocks), by_leaf(g.block for g in groups)
    if len(then) != len(now):
        raise ValueError(
            f"The layout was read of parameters with {len(then)} leaves, but these have {len(now)}."
        )
    identity = lambda block: (block.leaves, block.kind, block.parts, block.returned)
    said = lambda block: f"{block.kind} {block.shape} ({block.reason})"
    for leaf, path in enumerate(layout.paths):
        if identity(then[leaf]) != identity(now[leaf]):
            raise ValueError(
                f"The model uses {path} in another way than the model that the layout was read of: "
                f"there {said(then[leaf])}, here {said(now[leaf])}. Read the layout of this very "
                "model; the batch may be any."
            )


# --------------------------------------------------------------------------------- the forward pass


@dataclasses.dataclass(frozen=True)
class _Plan:
    """The equations to tap, those with recorded operands, and those around them."""

    sites: dict[Path, Site]
    recorded: dict[Path, Site]
    around: frozenset[Path]
    scaling: dict[Path, int]

    @classmethod
    def of(cls, reading: Reading, groups: Sequence[Group]) -> _Plan:
        used = [site for g in groups for row in g.sites for site in row]
        recorded = {site.recorded or site.path: site for site in used}
        paths = [*(site.path for site in used), *recorded]
        around = frozenset(path[:i] for path in paths for i in range(1, len(path)))
        return cls({site.path: site for site in used}, recorded, around, reading.scaling)

    def inside(self, path: Path, taps: dict[Path, Any]) -> dict[Path, Any]:
        return {p: t for p, t in taps.items() if p[: len(path)] == path}


def _evaluate(plan: _Plan, jaxpr: Any, constants, values, path: Path, taps) -> tuple[list, dict]:
    """The outputs of a program, and the records of its sites, by path."""
    env: dict[Any, Any] = {}
    factors: dict[Any, Any] = {}  # variable → the factor by which a leaf was multiplied on its way
    records: dict[Path, Any] = {}
    read = lambda atom: atom.val if is_literal(atom) else env[atom]
    env.update(zip(jaxpr.constvars, constants, strict=True))
    env.update(zip(jaxpr.invars, values, strict=True))
    for number in alive(jaxpr, effects=True):
        eqn, here = jaxpr.eqns[number], (*path, number)
        operands = [read(v) for v in eqn.invars]
        if here in plan.around:
            out, inner = _within(plan, eqn, operands, here, taps)
            records |= inner
        else:
            out = bind(eqn, operands)
        if here in plan.scaling:
            place = plan.scaling[here]
            known = factors.get(eqn.invars[place], jnp.ones((), out[0].dtype))
            factors |= dict.fromkeys(eqn.outvars, _factor(eqn, known, operands, place))
        if here in plan.recorded:
            site = plan.recorded[here]
            place = _place(eqn, site)
            records[here] = (
                None if site.operand is None else operands[site.operand],
                factors.get(eqn.invars[place]) if site.view.scaled else None,
            )
        if here in plan.sites:
            out = [_tap(out[0], taps[here])]
        env.update(zip(eqn.outvars, out, strict=True))
    if not path:
        returned = enumerate(None if is_literal(v) else v for v in jaxpr.outvars)
        records |= {(OUTPUT, k): factors.get(v) for k, v in returned}
    return [read(v) for v in jaxpr.outvars], records


def _place(eqn: Any, site: Site) -> int:
    """The number of the operand of a site's equation that is the leaf."""
    if site.kind == "shift":
        return site.how
    assert site.operand is not None
    return 1 - site.operand


def _factor(eqn: Any, known: Any, operands: list, place: int) -> Any:
    """The factor of a leaf after one more equation."""
    name = eqn.primitive.name
    if name in MOVES or name in PIECES:
        return known if known.ndim == 0 or name in SAME else bind(eqn, [known])[0]
    if name == "neg" or (name == "sub" and place == 1):
        return -known
    if name not in ("mul", "div"):
        return known
    other = jnp.asarray(operands[1 - place])
    other = other.reshape(()) if other.size == 1 else other
    new = known * other if name == "mul" else known / other
    return jnp.broadcast_to(new, eqn.outvars[0].aval.shape) if new.ndim else new


def _within(plan: _Plan, eqn: Any, operands: list, path: Path, taps: dict) -> tuple[list, dict]:
    """The results of an equation with sites inside, rebuilt around its tapped program."""
    name = eqn.primitive.name
    jaxpr, constants = opened(programs(eqn)[0])
    mine = plan.inside(path, taps)
    run = lambda values, t: _evaluate(plan, jaxpr, constants, values, path, t)
    if name == "scan":
        first, carried = scan_counts(eqn)
        before, start, over = (
            operands[:first],
            operands[first:][:carried],
            operands[first:][carried:],
        )

        def body(carry, xs):
            out, records = run([*before, *carry, *xs[0]], xs[1])
            return out[:carried], (out[carried:], records)

        params = {k: eqn.params[k] for k in ("length", "reverse", "unroll")}
        end, (stacked, records) = jax.lax.scan(body, start, (over, mine), **params)
        return [*end, *stacked], records
    if "prevent_cse" in eqn.params:
        keep = {k: eqn.params[k] for k in ("prevent_cse", "policy")}
        run = jax.checkpoint(run, **keep)
    return run(operands, mine)

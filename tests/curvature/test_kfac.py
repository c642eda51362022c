"""The factors of every layer against Kronecker blocks written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from tolerances import assert_close, rounding

import secondorder as so
from secondorder import layers
from secondorder.curvature import (
    drift,
    fisher_sample,
    ggn_components,
    ggn_sample,
    layerwise,
    per_example,
)
from secondorder.curvature._moments import basis
from secondorder.operators import _eigenbases as eb
from secondorder.operators import _kronecker as kr

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 2))
PARAMS = {
    "b1": np.zeros(4),
    "b2": np.ones(2),
    "w1": RNG.normal(size=(3, 4)),
    "w2": RNG.normal(size=(4, 2)),
}


def network(x, y=None, act=jnp.tanh, loss=so.squared_error):
    def model(p):
        return act(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]

    return so.compose(loss(Y[: len(x)] if y is None else y), model)


def updated(curvature, objective, params, of=so.dense):
    """The operator's matrix, or what else ``of`` makes of it, and the state."""
    return update_at(curvature, objective, params, curvature.init(params), of)


def update_at(curvature, objective, params, state, of=so.dense):
    """One program, as in a step of training."""

    @jax.jit
    def update(params, state):
        grad = jax.grad(objective)(params)
        operator, new = curvature.update(grad, state, params, objective, 0.1)
        return of(operator, params), new

    return update(params, state)


def exact_matrix(f, params):
    return np.asarray(jax.jit(lambda p: so.dense(so.ggn(f, p), p))(params))


def blocks_of(matrix, params):
    """The diagonal blocks of the GGN for (b1, w1) and (b2, w2), rows first, bias last."""
    sizes = {k: np.size(v) for k, v in params.items()}
    at, offset = {}, 0
    for k in sorted(params):
        at[k] = np.arange(offset, offset + sizes[k])
        offset += sizes[k]
    for w, b in (("w1", "b1"), ("w2", "b2")):
        index = np.concatenate([at[w], at[b]])
        yield matrix[np.ix_(index, index)]


def kronecker_blocks(state):
    return [np.kron(m.factors[0][0], m.factors[1][0]) for m in state.averages]


def test_one_example_has_exactly_its_kronecker_block():
    f = network(X[:1])
    exact = exact_matrix(f, PARAMS)
    _, state = updated(layerwise(f, ggn_components()), f, PARAMS)
    for found, block in zip(kronecker_blocks(state), blocks_of(exact, PARAMS), strict=True):
        assert_close(found, block)


def test_a_linear_network_with_squared_loss_has_exactly_its_kronecker_blocks():
    f = network(X, act=lambda h: h)
    exact = exact_matrix(f, PARAMS)
    matrix, state = updated(layerwise(f, ggn_components()), f, PARAMS)
    for found, block in zip(kronecker_blocks(state), blocks_of(exact, PARAMS), strict=True):
        assert_close(found, block)
    for found, block in zip(blocks_of(matrix, PARAMS), blocks_of(exact, PARAMS), strict=True):
        assert_close(found, block)


def factors_by_hand(params):
    """A and G of a tanh network by the definition: sums over examples and output components."""
    h = np.tanh(X @ params["w1"] + params["b1"])
    one = np.ones((len(X), 1))
    inputs = np.hstack([X, one]), np.hstack([h, one])
    slopes = [
        np.stack([(1 - h**2) * params["w2"][:, c] for c in range(2)], 1),
        np.tile(np.eye(2), (len(X), 1, 1)),
    ]
    a = [x.T @ x / len(X) for x in inputs]
    g = [np.einsum("nci,ncj->ij", s, s) / len(X) for s in slopes]
    return zip(a, g, strict=True)


def test_the_factors_are_second_moments_of_inputs_and_sensitivities():
    _, state = updated(layerwise(network(X), ggn_components()), network(X), PARAMS)
    for moments, (a, g) in zip(state.averages, factors_by_hand(PARAMS), strict=True):
        assert_close(moments.factors[0][0], a)
        assert_close(moments.factors[1][0], g)


@pytest.mark.quick(1)
@pytest.mark.parametrize("estimate", [fisher_sample, ggn_sample])
def test_sampled_factors_are_right_in_expectation(estimate):
    f, draws = network(X), 2000
    curvature = layerwise(f, estimate())
    start = curvature.init(PARAMS)

    def g_of(i):
        _, state = update_at(curvature, f, PARAMS, start._replace(count=i))
        return [m.factors[1][0] for m in state.averages]

    found = jax.jit(lambda: jax.lax.map(g_of, jnp.arange(draws), batch_size=100))()
    for samples, (_, g) in zip(found, factors_by_hand(PARAMS), strict=True):
        error = np.std(samples, axis=0) / np.sqrt(draws)
        noise = rounding(norm=np.max(np.abs(g)))
        assert np.all(np.abs(np.mean(samples, axis=0) - g) <= 5 * error + noise)


def test_the_empirical_fisher_has_the_gradients_of_the_examples():
    f = network(X[:1])
    _, state = updated(layerwise(f, per_example()), f, PARAMS)
    gradient = jax.jit(jax.grad(f))(PARAMS)
    row = np.concatenate([np.ravel(gradient["w2"]), gradient["b2"]])
    assert_close(kronecker_blocks(state)[1], np.outer(row, row))


def test_second_moments_in_eigenbases_are_those_of_the_examples():
    f = network(X)
    _, state = updated(layerwise(f, ggn_components(), eigen=True), f, PARAMS)
    exact = blocks_of(exact_matrix(f, PARAMS), PARAMS)
    for moments, bases, block in zip(state.averages, state.frame, exact, strict=True):
        q = np.kron(bases[0][0], bases[1][0])
        np.testing.assert_allclose(np.ravel(moments.squares), np.diag(q.T @ block @ q), rtol=1e-8)


def sequences(reduce):
    """A layer used at 5 positions of each of 6 examples."""
    x, y = RNG.normal(size=(6, 5, 3)), RNG.normal(size=(6, 5, 2))
    f = so.compose(so.squared_error(y), lambda w: x @ w)
    _, state = updated(layerwise(f, ggn_components(), reduce=reduce), f, np.zeros((3, 2)))
    return x, state.averages[0].factors


def test_expand_counts_positions_as_examples():
    x, (a, g) = sequences(reduce=False)
    assert_close(a[0], np.einsum("nti,ntj->ij", x, x) / 30)
    assert_close(g[0], 5 * np.eye(2))


@pytest.mark.quick(1)
@pytest.mark.parametrize("reduce", [False, True])
def test_second_moments_of_sequences_are_of_what_counts_as_examples(reduce):
    x, y = RNG.normal(size=(6, 5, 3)), RNG.normal(size=(6, 5, 2))
    f = so.compose(so.squared_error(y), lambda w: x @ w)
    curvature = layerwise(f, ggn_components(), reduce=reduce, eigen=True)
    _, state = updated(curvature, f, np.zeros((3, 2)))
    q = state.frame[0][0][0]
    inputs = np.sqrt(5) * x.mean(1) if reduce else x.reshape(30, 3)
    scales = np.sum((inputs @ q) ** 2, axis=0) / 6
    assert_close(state.averages[0].squares[0], np.outer(scales, [1, 1]), c=1e4)


@pytest.mark.slow
@pytest.mark.parametrize("refresh_every", [5, drift(0.1)])
@pytest.mark.parametrize("shape", [(0, 2), (3, 0), (0,)])
def test_a_leaf_without_entries_is_a_leaf(shape, refresh_every):
    with_empty = PARAMS | {"none": np.zeros(shape)}
    for eigen in (False, True):
        rule = {"eigen": eigen, "refresh_every": refresh_every}
        curvature = layerwise(network(X), ggn_components(), **rule)
        plain, _ = updated(curvature, network(X), PARAMS)
        curvature = layerwise(network(X), ggn_components(), **rule)
        found, _ = updated(curvature, network(X), with_empty)
        assert_close(found, plain)


def test_reduce_sums_positions_first():
    x, (a, g) = sequences(reduce=True)
    mean = x.mean(1)
    assert_close(a[0], mean.T @ mean / 6)
    assert_close(g[0], 5 * np.eye(2))


def test_a_look_up_keeps_how_often_each_row_was_taken():
    rows, table = jnp.array([0, 2, 2, 1]), np.zeros((4, 3))
    f = so.compose(so.squared_error(np.ones((4, 3))), lambda t: t[rows])
    for eigen in (False, True):
        matrix, state = updated(layerwise(f, ggn_components(), eigen=eigen), f, table)
        a, g = state.averages[0].factors
        np.testing.assert_allclose(a[0], [0.25, 0.25, 0.5, 0])
        assert_close(g[0], np.eye(3))
        exact = exact_matrix(f, table)
        assert_close(matrix, exact)


def test_a_leaf_in_no_layer_has_the_grams_of_its_axes():
    w = RNG.normal(size=(3, 2))
    f = so.compose(so.squared_error(Y), lambda w: jnp.sin(X @ jnp.exp(w)))
    matrix, state = updated(layerwise(f, fisher_sample()), f, w)
    assert [x.shape for x in state.averages[0].factors] == [(1, 3, 3), (1, 2, 2)]
    # The product of the two has the trace of each.
    trace = np.trace(state.averages[0].factors[0][0])
    assert_close(np.trace(matrix), trace)


def test_factors_too_long_are_kept_as_their_diagonals():
    f = network(X)
    whole, state = updated(layerwise(f, ggn_components()), f, PARAMS)
    cut = layerwise(f, ggn_components(), max_size=3)
    _, short = updated(cut, f, PARAMS)
    for a, b in zip(state.averages, short.averages, strict=True):
        for x, y in zip(a.factors, b.factors, strict=True):
            expected = x if x.shape[-1] <= 3 else np.diagonal(x, axis1=1, axis2=2)
            assert_close(y, expected)


def renewed(curvature, steps):
    """Whether each update of ``(params, damping)`` renewed the frame, in one compiled update."""
    f = network(X)
    update = jax.jit(
        lambda p, state, damping: curvature.update(jax.grad(f)(p), state, p, f, damping)[1]
    )
    state, seen = curvature.init(PARAMS), []
    for params, damping in steps:
        new = update(params, state, damping)
        pairs = zip(*map(jax.tree.leaves, (state.frame, new.frame)), strict=True)
        seen.append(any(not np.array_equal(*pair) for pair in pairs))
        state = new
    assert update._cache_size() == 1
    return seen


ELSEWHERE = jax.tree.map(lambda x: -2.0 * x + 0.3, PARAMS)


def test_inverses_are_renewed_where_factors_or_damping_have_drifted():
    steps = [(PARAMS, 0.1)] * 3 + [(ELSEWHERE, 0.1)] * 2 + [(ELSEWHERE, 10.0)]
    adaptive = layerwise(network(X), ggn_components(), decay=0.0, refresh_every=drift(1e-3))
    assert renewed(adaptive, steps) == [True, False, False, True, False, True]
    kept = layerwise(network(X), ggn_components(), decay=0.0, refresh_every=drift(1e9))
    assert renewed(kept, steps) == [True, False, False, False, False, False]


@pytest.mark.slow
def test_bases_are_renewed_where_factors_have_drifted_until_they_have_caught_up():
    steps = [(PARAMS, 0.1)] * 3 + [(ELSEWHERE, 0.1)] * 60 + [(ELSEWHERE, 10.0)]
    adaptive = layerwise(
        network(X), ggn_components(), decay=0.0, refresh_every=drift(1e-3), eigen=True
    )
    seen = renewed(adaptive, steps)
    assert seen[:5] == [True, False, False, True, True]  # one step is not enough
    assert not any(seen[-2:])  # by then, and a basis does not depend on the damping
    assert seen[3:] == sorted(seen[3:], reverse=True)  # without a pause on the way
    kept = layerwise(network(X), ggn_components(), decay=0.0, refresh_every=drift(1e9), eigen=True)
    assert renewed(kept, steps[:6]) == [True, False, False, False, False, False]


def test_bases_are_eigenvectors_at_first_and_then_one_orthogonal_iteration_nearer():
    rng = np.random.default_rng(3)
    roots = rng.normal(size=(2, 2, 4, 4))
    first, moved = (r @ np.swapaxes(r, 1, 2) for r in (roots[0], roots[0] + 0.2 * roots[1]))
    start = np.tile(np.eye(4), (2, 1, 1))
    renew, off_diagonal = jax.jit(basis), jax.jit(eb.off_diagonal)
    found = renew(first, start)
    assert np.max(off_diagonal(first, found)) < rounding(np.linalg.cond(first).max())
    nearer = jax.jit(eb.next_basis)(moved, found)
    assert_close(renew(moved, found), nearer, np.linalg.cond(moved).max())
    # A factor of zeros, as of a layer below one that starts at zero, has taught nothing.
    blank = renew(0 * first, start)
    again = off_diagonal(first, renew(first, blank))
    assert np.max(again) < rounding(np.linalg.cond(first).max())


def test_the_drift_of_an_inverse_is_what_it_misses_of_the_identity():
    rng = np.random.default_rng(1)
    factors = tuple((x @ x.T)[None] for x in (rng.normal(size=(3, 3)), rng.normal(size=(2, 4))))
    diagonal = rng.uniform(1, 2, size=(1, 5))
    residuals = jax.jit(kr.residuals)
    kept = jax.jit(kr.inverses)((*factors, diagonal), 0.5)
    none = residuals(kept, (*factors, diagonal), 0.5)
    assert max(np.max(r) for r in none) < rounding(max(np.linalg.cond(f[0]) for f in factors))
    grown = (1.2 * factors[0], factors[1], diagonal)
    missed, shifts = residuals(kept, grown, 0.3), jax.jit(kr.shifts)(grown, 0.3)
    for found, p, f, shift in zip(missed, kept, grown, shifts, strict=True):
        p, f = (np.diag(x[0]) if x.ndim == 2 else x[0] for x in (p, f))
        error = p @ (f + float(shift[0]) * np.eye(len(f))) - np.eye(len(f))
        assert_close(found[0], np.linalg.norm(error) / len(f) ** 0.5, np.linalg.cond(f), norm=1)


@pytest.mark.quick(1)
@pytest.mark.parametrize("eigen", [False, True])
def test_dead_layers_do_not_drift(eigen):
    f = so.compose(so.squared_error(Y), lambda w: jax.nn.relu(X @ w - 1e3))
    curvature = layerwise(f, ggn_components(), refresh_every=drift(1e-6), eigen=eigen)
    params = np.zeros((3, 2))
    state = curvature.init(params)
    update = jax.jit(lambda state: curvature.update(params, state, params, f, 0.1)[1])
    for _ in range(3):
        state = update(state)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((state.averages, state.frame)))


def test_a_model_other_than_the_example_is_refused_with_the_leaf_named():
    example = network(X)
    other = so.compose(so.squared_error(Y), lambda p: X @ p["w1"] @ p["w2"] + p["b2"])
    curvature = layerwise(example)
    with pytest.raises(ValueError, match="in another way"):
        update_at(curvature, other, PARAMS, curvature.init(PARAMS))


def test_an_estimate_without_outputs_is_refused():
    with pytest.raises(ValueError, match="pulled back from the model's outputs"):
        layerwise(network(X), so.curvature.gradient())
    with pytest.raises(TypeError, match=r"compose\(loss, model\)"):
        layerwise(lambda p: 0.0).init(PARAMS)


# ------------------------------------------------------------------------ leaves that are returned

MU = 0.3


def penalised(x=X, act=lambda h: h, of=lambda p: p):
    """The network and, beside its outputs, leaves that an L2 penalty sees."""
    model = network(x, act=act).model
    loss = so.losses.total(so.squared_error(Y[: len(x)]), so.losses.half_sum_of_squares())
    return so.compose(loss, lambda p: (model(p), so.tree.scale(np.sqrt(MU), of(p))))


@pytest.mark.quick(1)
@pytest.mark.parametrize("eigen", [False, True], ids=["factors", "eigenbases"])
def test_an_l2_penalty_adds_exactly_its_multiple_of_the_identity(eigen):
    f = penalised()
    exact = exact_matrix(f, PARAMS)
    matrix, _ = updated(layerwise(f, ggn_components(), eigen=eigen), f, PARAMS)
    for found, block in zip(blocks_of(matrix, PARAMS), blocks_of(exact, PARAMS), strict=True):
        assert np.abs(block - np.diag(np.diag(block))).max() > 0.1
        assert_close(found, block, 10)  # through eigenbases and back


def test_the_inverse_in_the_eigenbases_has_the_penalty_within():
    f = penalised()
    exact = exact_matrix(f, PARAMS)
    flat, back = ravel_pytree(PARAMS)

    def inverse_of(operator, params):
        return jax.jacobian(lambda v: ravel_pytree(operator.solve(back(v), 0.1))[0])(flat)

    curvature = layerwise(f, ggn_components(), eigen=True)
    inverse = np.asarray(updated(curvature, f, PARAMS, inverse_of)[0])
    for found, block in zip(blocks_of(inverse, PARAMS), blocks_of(exact, PARAMS), strict=True):
        damped = block + 0.1 * np.eye(len(block))
        wanted = np.linalg.inv(damped)
        assert_close(found, wanted, np.linalg.cond(damped))


def test_the_inverses_of_the_factors_take_the_penalty_for_damping():
    f, plain = penalised(), network(X, act=lambda h: h)
    solve = lambda operator, params: operator.solve(params, 0.0)
    with_penalty, _ = updated(layerwise(f, ggn_components()), f, PARAMS, solve)  # at λ = 0.1
    curvature = layerwise(plain, ggn_components())

    @jax.jit
    def damped(p, state):
        operator, _ = curvature.update(jax.grad(plain)(p), state, p, plain, 0.1 + MU)
        return solve(operator, p)

    exact = exact_matrix(f, PARAMS)
    kappa = np.linalg.cond(exact + 0.1 * np.eye(len(exact)))
    expected = damped(PARAMS, curvature.init(PARAMS))
    jax.tree.map(lambda a, b: assert_close(a, b, kappa), with_penalty, expected)


VIEWS = {
    "kernels alone": (lambda p: [p["w1"], p["w2"]], [3 / 4, 4 / 5]),
    "transposed": (lambda p: [p["w1"].T, p["w2"].T.reshape(-1)], [3 / 4, 4 / 5]),
    "twice": (lambda p: [p, p], [2, 2]),
    "from elsewhere": (lambda p: [p["w1"] - np.arange(12.0).reshape(3, 4)], [3 / 4, None]),
    "times a traced number": (
        lambda p: [jnp.sin(jnp.ones(())) * p["w1"]],
        [3 / 4 * np.sin(1) ** 2, None],
    ),
}


@pytest.mark.quick(1)
@pytest.mark.parametrize("of, parts", VIEWS.values(), ids=VIEWS)
def test_what_is_returned_may_be_a_part_of_a_layer_seen_another_way(of, parts):
    f = penalised(of=of)
    _, state = updated(layerwise(f, ggn_components()), f, PARAMS)
    plain = network(X, act=lambda h: h)
    _, other = updated(layerwise(plain, ggn_components()), plain, PARAMS)
    for mine, theirs, part in zip(state.averages, other.averages, parts, strict=True):
        assert (mine.returned is None) == (part is None)
        if part is not None:
            np.testing.assert_allclose(mine.returned, part * MU, rtol=rounding())
        for a, b in zip(mine.factors, theirs.factors, strict=True):
            assert_close(a, b)


def test_a_sampled_penalty_is_met_in_expectation():
    f = penalised()
    curvature = layerwise(f, fisher_sample(), decay=0.99)
    step = lambda state, _: (update_at(curvature, f, PARAMS, state)[1], None)
    state, _ = jax.lax.scan(step, curvature.init(PARAMS), length=300)
    for mine in state.averages:
        np.testing.assert_allclose(mine.returned, MU, rtol=0.1)


def test_leaves_that_are_returned_are_named_and_not_told_apart_by_example():
    layout = layers.read(penalised().model, PARAMS)
    assert [block.kind for block in layout.blocks] == ["dense", "dense"]
    assert all(block.returned and not block.apart for block in layout.blocks)
    assert all("returned" in row.reason for row in so.layer_table(penalised(), PARAMS))
    some = penalised(of=lambda p: p["w1"])
    first, second = layers.read(some.model, PARAMS).blocks
    assert first.returned and not first.apart and second.apart and not second.returned


def test_a_leaf_that_is_scaled_entry_by_entry_before_it_is_returned_is_a_fallback():
    f = penalised(of=lambda p: p["w1"] * np.arange(12.0).reshape(3, 4))
    blocks = {row.leaf: row for row in so.layer_table(f, PARAMS)}
    assert blocks["['w1']"].block == "fallback (1, 1, 12)"
    assert blocks["['w2']"].block == "dense (1, 5, 2)"


def test_a_number_among_the_outputs_changes_nothing():
    params, x = {"w": np.ones((3, 2))}, jnp.asarray(X)
    model = lambda p: (x @ p["w"], 1.0, 0.5 * p["w"])
    tapped = layers.instrumented(model, params, layers.read(model, params))
    cotangent = (jnp.ones((6, 2)), jnp.ones(()), jnp.ones((3, 2)))
    assert tapped.returned(cotangent) == (0.25,)
    grads, ((use,),) = tapped.pull(cotangent)
    through = np.einsum("snta,sntb->ab", use.inputs, use.sensitivities)
    assert_close(grads["w"], through + 0.5)


def test_a_model_that_returns_other_leaves_than_its_layout_says_is_refused():
    layout = layers.read(network(X).model, PARAMS)
    with pytest.raises(ValueError, match="in another way"):
        layers.instrumented(penalised(act=jnp.tanh).model, PARAMS, layout)

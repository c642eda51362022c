"""SOAP: the published steps, from fixed gradients; and what makes them right."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tolerances import assert_close, condition_of
from training import fixed_gradients, steps_along

import secondorder as so


def reference(w, grads, *, lr, b1, b2, eps, f, sides, weight_decay=0.0, skip=True, current=False):
    """Vyas et al. (2024), algorithms 3 and 4, in NumPy: a loop over explicit matrices.

    As in their program: the first basis is by ``eigh``, from the first gradient, which counts in no
    moment and takes no step; moments are corrected for bias; before a QR step the columns, and the
    second moments, are put in order. Without ``skip`` the first step is Adam's, and the squares of
    its gradient are counted in the basis that it gives. With ``current`` a basis is computed before
    the step, and the squares and the step are in it.
    """
    w, rank = w.copy(), w.ndim
    m, v = np.zeros_like(w), np.zeros_like(w)
    gram = [np.zeros((d, d)) for d in w.shape]
    q = [np.eye(d) for d in w.shape]
    sided = [i for i in range(rank) if sides[i]]

    def rotate(x, matrices):
        for i in sided:
            x = np.moveaxis(np.tensordot(matrices[i], x, axes=(1, i)), 0, i)
        return x

    def renew(t, g, v):
        for i in sided:
            others = [j for j in range(rank) if j != i]
            gram[i] = b2 * gram[i] + (1 - b2) * np.tensordot(g, g, axes=(others, others))
            if t == 1:
                q[i] = np.linalg.eigh(gram[i])[1][:, ::-1]
            elif (t - 1) % f == 0:
                order = np.argsort(-np.diag(q[i].T @ gram[i] @ q[i]), kind="stable")
                v = np.take(v, order, axis=i)
                q[i] = np.linalg.qr(gram[i] @ q[i][:, order])[0]
        return v

    for t, g in enumerate(grads, start=1):
        if current:
            v = renew(t, g, v)
        count, back = t - skip, [a.T for a in q]
        if count:
            g_in = rotate(g, back)
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g_in**2
            m_hat = rotate(m, back) / (1 - b1**count)
            n = rotate(m_hat / (np.sqrt(v / (1 - b2**count)) + eps), q)
            w = w - lr * (n + weight_decay * w)
        yield w
        if not current:
            v = renew(t, g, v)
        if t == 1 and not skip and not current:
            v = (1 - b2) * rotate(g, [a.T for a in q]) ** 2


@pytest.mark.quick(1)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("f", "max_dim", "weight_decay", "skip", "current"),
    [
        (1, 100, 0.0, True, False),
        (3, 100, 0.1, True, False),
        (2, 5, 0.0, False, False),
        (2, 1, 0.0, True, False),
        (1, 100, 0.1, True, True),
        (2, 100, 0.0, True, True),
    ],
)
def test_it_takes_the_steps_of_the_published_algorithm(f, max_dim, weight_decay, skip, current):
    # The first Grams have full rank: vectors of a null space are the eigensolver's own choice.
    shapes = {"matrix": (5, 5), "kernel": (3, 2, 4), "vector": (5,), "scalar": ()}
    params, grads = fixed_gradients(shapes, 9)
    settings = {"b1": 0.9, "b2": 0.8, "eps": 1e-8, "weight_decay": weight_decay}
    asked = {"skip_first_step": skip, "current_gradient": current}
    tx = so.soap(0.1, refresh_every=f, max_precond_dim=max_dim, **asked, **settings)
    found = list(steps_along(tx, params, grads))
    for name, shape in shapes.items():
        sides = [len(shape) > 1 and d <= max_dim for d in shape]
        matrices = [np.moveaxis(grads[0][name], i, 0).reshape(d, -1) for i, d in enumerate(shape)]
        kappa = max([1.0, *(condition_of(x) ** 2 for x in matrices)])  # of the first Grams
        settings |= {"f": f, "skip": skip, "current": current}
        expected = reference(
            params[name], [g[name] for g in grads], lr=0.1, sides=sides, **settings
        )
        for ours, theirs in zip(found, expected, strict=True):
            assert_close(ours[name], theirs, kappa)


@pytest.mark.usefixtures("x64")
def test_each_block_of_a_large_axis_has_a_basis_of_its_own():
    params, grads = fixed_gradients({"w": (7, 4)}, 6)
    settings = {"b1": 0.9, "b2": 0.8, "eps": 1e-8}
    tx = so.soap(0.1, block_size=4, max_precond_dim=3, refresh_every=2, **settings)
    found = list(steps_along(tx, params, grads))
    for rows in (slice(0, 4), slice(4, 7)):  # the second block is padded
        part = [g["w"][rows] for g in grads]
        expected = reference(params["w"][rows], part, lr=0.1, f=2, sides=[True, True], **settings)
        for a, b in zip(found, expected, strict=True):
            assert_close(a["w"][rows], b, 100 * condition_of(part[0]) ** 2)


def test_a_first_batch_of_nan_does_not_count_as_the_first():
    params, grads = fixed_gradients({"w": (3, 3)}, 5)
    params, grads = jax.tree.map(jnp.float32, (params, grads))
    spoilt = [jax.tree.map(lambda x: x * jnp.nan, grads[0]), *grads]
    ours = list(steps_along(so.soap(0.1), params, spoilt))
    np.testing.assert_array_equal(ours[0]["w"], params["w"])
    for a, b in zip(ours[1:], steps_along(so.soap(0.1), params, grads), strict=True):
        np.testing.assert_allclose(a["w"], b["w"], rtol=1e-4)


def test_without_any_matrix_it_is_adam():
    params, grads = fixed_gradients({"vector": (5,)}, 6)
    params, grads = jax.tree.map(jnp.float32, (params, grads))
    first, *ours = steps_along(so.soap(0.1, b1=0.9, b2=0.99), params, grads)
    np.testing.assert_array_equal(first["vector"], params["vector"])
    adam = steps_along(optax.adam(0.1, 0.9, 0.99), params, grads[1:])
    for a, b in zip(ours, adam, strict=True):
        np.testing.assert_allclose(a["vector"], b["vector"], rtol=1e-4)


@pytest.mark.usefixtures("x64")
def test_the_second_moment_is_updated_at_every_step_not_only_when_the_basis_is():
    params, grads = fixed_gradients({"w": (3, 3)}, 4)
    tx = so.soap(refresh_every=1000)
    state, params = tx.init(params), jax.tree.map(jnp.asarray, params)
    seen, update = [], jax.jit(tx.update)
    for g in grads:
        _, state = update(g, state, params)
        seen.append(state[0].curvature)
    for a, b in itertools.pairwise(seen[1:]):
        assert np.all(a.averages[0].squares != b.averages[0].squares)
        np.testing.assert_array_equal(a.frame[0][0], b.frame[0][0])


@pytest.mark.usefixtures("x64")
def test_a_rotation_of_the_layer_rotates_the_steps():
    rng = np.random.default_rng(0)
    p, r = (np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(2))
    params, grads = fixed_gradients({"w": (4, 4)}, 8)
    turn = lambda x: {"w": p @ x["w"] @ r}

    def late_steps(params, grads):
        # A basis of eigenvectors, and squares that fade: neither is of the layer's coordinates.
        tx = so.soap(0.1, b2=0.01, refresh_every=1)
        found = [params, *steps_along(tx, params, grads)]
        return [np.asarray(b["w"] - a["w"]) for a, b in itertools.pairwise(found)][-2:]

    ours = late_steps(params, grads)
    turned = late_steps(turn(params), [turn(g) for g in grads])
    for a, b in zip(ours, turned, strict=True):
        np.testing.assert_allclose(p @ a @ r, b, rtol=1e-5, atol=1e-5)

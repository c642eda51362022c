"""Scalars in one array per dtype: packed and unpacked, they are the same."""

import chex
import jax
import jax.numpy as jnp

from secondorder.optimize._packing import Packing


def test_packing_joins_the_scalars_of_a_kind_and_gives_them_back_alone_and_under_vmap():
    example = {
        "yes": jnp.asarray(True),
        "count": jnp.asarray(3, jnp.int32),
        "key": jax.random.key(0),
        "x": jnp.asarray(0.5),
        "y": jnp.asarray(-2.0),
        "half": jnp.asarray(1.5, jnp.bfloat16),
        "array": jnp.arange(3.0),
    }
    packing = Packing.of(example)
    packed = packing.pack(example)
    kinds = [(x.dtype, x.shape) for x in packed.stacks]
    assert sorted(map(str, kinds)) == sorted(
        map(
            str,
            [
                (jnp.dtype(jnp.int32), (2,)),
                (jnp.dtype(jnp.float32), (2,)),
                (jnp.dtype(jnp.bfloat16), (1,)),
            ],
        )
    )
    chex.assert_trees_all_equal(packing.unpack(packed), example)

    def there_and_back(x):
        tree = example | {"x": x, "yes": x > 1, "count": jnp.asarray(x, jnp.int32)}
        return packing.unpack(packing.pack(tree))

    many = jax.jit(jax.vmap(there_and_back, out_axes=0))(jnp.arange(4.0))
    for i in range(4):
        chex.assert_trees_all_equal(
            jax.tree.map(lambda x, i=i: x[i], many), there_and_back(jnp.asarray(float(i)))
        )


def test_a_batch_is_packed_by_vmap_and_unpacked_outside_of_it():
    example = {"x": jnp.asarray(0.5), "count": jnp.asarray(3, jnp.int32), "array": jnp.arange(3.0)}
    packing = Packing.of(example)
    many = jax.tree.map(lambda x: jnp.stack([x, x + 1]), example)
    chex.assert_trees_all_equal(packing.unpack(jax.vmap(packing.pack)(many)), many)

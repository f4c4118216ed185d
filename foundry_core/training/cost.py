# SPDX-License-Identifier: Apache-2.0
"""What a sample costs in pre-training: the floating point operations of its matrix products, forwards and backwards."""

from __future__ import annotations

from collections.abc import Iterator

from foundry_core.models.objective_config import JepaObjective, MaeObjective
from foundry_core.runtime.macs import Product, block_products, position_products, tokenizer_products
from foundry_core.training.config import PretrainConfig

_FORWARD, _BOTH = 1, 3  # the gradient of a product takes two more of its size


def _tokenizer(config: PretrainConfig, groups: int) -> Iterator[Product]:
    """In training the maps of the tokenizer are not composed, as they are for the robot."""
    return tokenizer_products(config.architecture, config.preprocessing, groups, composed=False)


def _parts(config: PretrainConfig) -> Iterator[tuple[int, Iterator[Product]]]:
    """How often each part's products are made for one cloud, and the products."""
    encoder, groups, objective = config.architecture.encoder, config.preprocessing.groups, config.objective
    d = encoder.width
    if config.contrast:
        yield _BOTH, iter([Product(1, 2 * d, 2 * d), Product(1, 2 * d, config.contrast.width)])
    if isinstance(objective, JepaObjective):
        n = objective.target_size(groups, 0.5)
        # places of the sequence that none of the target blocks covers, were they drawn independently
        free = round(groups * (1 - n / groups) ** objective.targets)
        v, m = objective.context_size(free, 0.5), objective.targets
        width = objective.predictor_width or d // 2
        predictor = encoder.model_copy(update={"width": width, "depth": objective.predictor_depth})
        yield _BOTH, _tokenizer(config, groups)
        yield _BOTH, position_products(groups, encoder)
        yield _BOTH, block_products(v, encoder)
        yield _FORWARD, block_products(groups, encoder)
        yield _BOTH * m, iter([Product(v, d, width), Product(n, width, d)])
        yield _BOTH * m, position_products(v + n, predictor)
        yield _BOTH * m, block_products(v + n, predictor)
        return
    masked = round(groups * objective.mask_ratio)
    decoder = encoder.model_copy(update={"depth": objective.decoder_depth})
    yield _BOTH, block_products(groups - masked, encoder)
    yield _BOTH, block_products(groups, decoder)
    yield _BOTH, position_products(groups, encoder)
    if isinstance(objective, MaeObjective):
        k = config.preprocessing.neighbors
        yield _BOTH, _tokenizer(config, groups - masked)
        yield _BOTH, position_products(groups - masked, encoder)
        yield _BOTH, iter([Product(masked, d, 3 * k), Product(masked * k, 3, k, weight=False)])
    else:
        yield _BOTH, _tokenizer(config, groups)
        yield _FORWARD, block_products(groups, encoder)
        yield _BOTH, iter([Product(masked, d, d)])


def flops_per_sample(config: PretrainConfig) -> float:
    """Floating point operations of the matrix products that one shape costs in one step; two for each multiply-add.

    For Point-JEPA, whose blocks vary in size, those of blocks of mean size. With contrast a shape is two clouds; the
    similarities of the batch, a thousandth, are not counted.
    """
    clouds = 2 if config.contrast else 1
    products = sum(times * p.rows * p.inner * p.columns * p.count for times, parts in _parts(config) for p in parts)
    return 2.0 * clouds * products


def hours(shapes: int, epochs: int, samples_per_second: float) -> float:
    """Hours of a pre-training at a measured rate."""
    return shapes * epochs / samples_per_second / 3600

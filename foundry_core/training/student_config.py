# SPDX-License-Identifier: Apache-2.0
"""What the configuration of a distillation must fulfil beyond its schema, most of it because of its teacher."""

from __future__ import annotations

from foundry_core.architecture import Architecture
from foundry_core.card import ModelCard
from foundry_core.errors import InputError
from foundry_core.training.config import DistillConfig
from foundry_core.training.specialist import task_file


def student_architecture(config: DistillConfig, teacher: ModelCard, source: str) -> Architecture:
    """The student's architecture, with the teacher's feature width.

    Raises:
        InputError: the configuration contradicts itself or does not fit its teacher; key and remedy are named.
    """
    if teacher.kind != "teacher":
        raise InputError(f"{source}: teacher: {config.teacher} is a {teacher.kind}; name a teacher")
    architecture, weights = config.architecture, config.losses
    if architecture.supertokens is None:
        raise InputError(f"{source}: architecture.supertokens: missing; a student needs it")
    count = architecture.supertokens.count
    if config.budgets and (max(config.budgets) > count or min(config.budgets) < 1):
        raise InputError(f"{source}: budgets: must lie within 1 and architecture.supertokens.count ({count})")
    if len(set(config.budgets)) < len(config.budgets):
        raise InputError(f"{source}: budgets: {config.budgets} has a number twice; give each once")
    if config.default_budget not in (None, *config.budgets):
        raise InputError(f"{source}: default_budget: {config.default_budget} is none of the budgets; correct it")
    if bool(weights.logits) != (config.task is not None):
        raise InputError(f"{source}: losses.logits: needs a task, and only with it")
    if config.task is not None:
        task_file(config.data.files, config.task, source)
    if not any(weights.model_dump().values()):
        raise InputError(f"{source}: losses: all are zero; give one of them a weight")
    if bool(weights.alone) != architecture.supertokens.alone:
        raise InputError(f"{source}: losses.alone: needs architecture.supertokens.alone, and only with it")
    if bool(weights.gate) != bool(architecture.supertokens.gate):
        raise InputError(f"{source}: losses.gate: needs architecture.supertokens.gate, and only with it")
    theirs = teacher.architecture
    if architecture.encoder.width != theirs.encoder.width:
        for key, value in (("losses.tokenizer", weights.tokenizer), ("tokenizer_share", config.tokenizer_share)):
            if value:
                raise InputError(f"{source}: {key}: the teacher's tokens are not as wide; leave it out")
    elif config.tokenizer_share and config.freeze_tokenizer and architecture.tokenizer == theirs.tokenizer:
        raise InputError(f"{source}: tokenizer_share: the teacher's tokenizer is kept, and frozen; leave it out")
    width = theirs.token_width
    if width != architecture.encoder.width:
        architecture = architecture.model_copy(update={"output_width": width})
    return architecture

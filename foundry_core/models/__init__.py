# SPDX-License-Identifier: Apache-2.0
"""Tokenizer, transformer, teacher, supertokens, student and heads (needs torch)."""

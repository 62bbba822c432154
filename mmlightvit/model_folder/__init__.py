# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A model folder: what a model says of itself, its card, written and read."""

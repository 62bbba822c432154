# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A model folder: the description of a model, its card and its weights, written and read."""

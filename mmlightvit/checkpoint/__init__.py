# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Recognising what a checkpoint holds, loading it strictly, converting it."""

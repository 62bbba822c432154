# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Exported models at work for others: over HTTP, and in a repository of Triton."""

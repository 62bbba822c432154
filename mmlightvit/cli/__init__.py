# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The command lines: parsers, options, and what each command does."""

# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""A trained model taken further: the compiler, export, runtimes, a service."""

# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What takes a trained model further: the compiler, export, runtimes, a service."""

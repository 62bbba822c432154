# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Modules that example configs add by ``custom_imports``, as a project of yours would."""

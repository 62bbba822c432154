# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Runs that survive: generic add-ons for MMEngine, for models of any kind."""

# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The layers of LightViT, each its own file: import them by module. They need torch and nothing else."""

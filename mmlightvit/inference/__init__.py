# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""From a model to an answer: models of any form, pictures of any kind, one result.

Only ``torch_backend`` and ``model_folder`` import torch and the toolboxes; the rest runs beside an exported model too.
"""

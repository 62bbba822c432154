# ADE20K of mmseg; the path is spelled out because mmengine's `mmseg::` prefix knows one distribution's name only.
_base_ = __import__('mmseg').__path__[0] + '/.mim/configs/_base_/datasets/ade20k.py'

# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Build of the package; the configs, tools and model index travel inside it, where mim and mmengine look for them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM = Path('mmlightvit') / '.mim'
#: What users call of the tools; the paper's and the maintainers' stay in the repository.
TOOLS = (
    *('train.py', 'test.py', 'convert_checkpoint.py', 'dist_train.sh', 'dist_test.sh', 'slurm_train.sh'),
    *('slurm_test.sh', 'analysis/get_flops.py', 'analysis/plot_logs.py', 'misc', 'demo'),
)
RESOURCES = ('configs', 'requirements', 'model-index.yml', *(f'tools/{name}' for name in TOOLS))

# The toolboxes come in several distributions that exclude each other, and one asks for an OpenCV beside OpenCV, so they
# are installed by `pip install --no-deps -r requirements/toolboxes.txt`: docs/install.md. Without them and PyTorch the
# package runs exported models.
BASE = ['numpy', 'pillow', 'packaging', 'rich', 'safetensors']
EXTRAS = {
    # PyTorch, and what the toolboxes and imaug require but themselves, a second OpenCV, and imagecorruptions-imaug,
    # which brings numba for transforms that mmdet does not use.
    'train': [
        *('torch>=2.10,<2.14', 'torchvision>=0.25,<0.29', 'opencv-python', 'numpy>2'),
        *('addict', 'pyyaml', 'termcolor', 'yapf'),  # mmengine, mmcv
        *('matplotlib', 'pycocotools', 'scipy', 'shapely', 'six', 'terminaltables', 'tqdm'),  # mmdetection
        *('einops', 'importlib-metadata', 'mat4py', 'modelindex'),  # mmpretrain
        *('ftfy', 'prettytable', 'regex'),  # mmsegmentation
        *('imageio', 'scikit-image'),  # imaug
    ],
    'runtime': ['onnxruntime>=1.20'],
    'openvino': ['openvino>=2025.0'],
    'export': ['onnx>=1.17', 'onnxscript>=0.5', 'onnxruntime>=1.20'],
    'data': ['defusedxml>=0.7.1', 'pyyaml', 'scikit-learn'],
    'report': ['hotcoco>=1.3,<2', 'jinja2', 'matplotlib', 'scikit-learn'],
    'serve': ['onnxruntime>=1.20', 'fastapi>=0.165,<1', 'uvicorn>=0.54,<1', 'python-multipart>=0.0.34,<0.1'],
    'demo': ['gradio>=6,<7', 'pillow<13'],
    'docs': ['sphinx', 'myst-parser', 'furo', 'sphinx-copybutton', 'sphinx-mathjax-offline'],
    'notebooks': ['nbmake', 'jupytext', 'ipykernel'],
    'hub': ['huggingface-hub'],
    'tests': [
        *('mypy', 'ruff==0.17.6', 'pytest', 'pytest-timeout', 'pytest-xdist'),
        *('httpx2', 'supervision', 'timm'),
        *('tensorboard>=2.16,<3', 'mlflow-skinny>=3,<4', 'sqlalchemy>=2,<3', 'alembic>=1.13,<2'),
        *('onnx>=1.17', 'onnxscript>=0.5', 'onnxruntime>=1.20', 'openvino>=2025.0'),
    ],
}


class BuildWithResources(build_py):
    """Copies the resources into ``mmlightvit/.mim``; an editable installation links them instead."""

    def run(self) -> None:
        super().run()
        folder = (ROOT if self.editable_mode else Path(self.build_lib)) / MIM
        shutil.rmtree(folder, ignore_errors=True)
        for name in RESOURCES:
            source, target = ROOT / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if self.editable_mode:
                target.symlink_to(os.path.relpath(source, target.parent))
            elif source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__', '*.pyc'))
            else:
                shutil.copy2(source, target)


def version() -> str:
    scope: dict[str, str] = {}
    exec((ROOT / 'mmlightvit' / 'version.py').read_text(), scope)
    return scope['__version__']


def extras() -> dict[str, list[str]]:
    """All extras; ``all`` is all but the demo's, which want an older pillow, and the tests'."""
    everything = {line for name, lines in EXTRAS.items() if name not in ('demo', 'tests') for line in lines}
    return {**EXTRAS, 'all': sorted(everything)}


setup(
    name='mmlightvit',
    version=version(),
    description='LightViT (arXiv 2207.05557) for the OpenMMLab ecosystem',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11',
    classifiers=[f'Programming Language :: Python :: {version}' for version in ('3', '3.11', '3.12', '3.13')],
    packages=find_packages(include=['mmlightvit', 'mmlightvit.*']),
    package_data={'mmlightvit.deploy.page': ['static/*'], 'mmlightvit.evaluation': ['page.html']},
    entry_points={'console_scripts': ['mmlightvit = mmlightvit.cli:main']},
    install_requires=BASE,
    extras_require=extras(),
    include_package_data=False,
    cmdclass={'build_py': BuildWithResources},
    zip_safe=False,
)

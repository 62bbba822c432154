# Training, testing, reports and export, on NVIDIA GPUs. Nothing is compiled: torchvision's operators stand in for mmcv's.
#
#   docker build -f docker/train.Dockerfile -t mmlightvit-train .
#   docker run --rm --gpus all --shm-size 8g --user "$(id -u):$(id -g)" \
#       -v "$PWD:/work" mmlightvit-train train pets --work-dir work_dirs/pets
#
# Without GPUs: --build-arg BASE=python:3.11-slim
ARG BASE=pytorch/pytorch:2.11.0-cuda12.8-cudnn9-runtime
FROM ${BASE}
# For OpenCV.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
# Before the sources, so that a change of these builds none of them again.
COPY requirements /source/requirements
RUN pip install --no-deps -r /source/requirements/toolboxes.txt
COPY . /source
RUN pip install "/source[train,data,report,export]"
# Caches of torch and matplotlib go where any user may write.
ENV HOME=/tmp
USER 10001
WORKDIR /work
ENTRYPOINT ["mmlightvit"]
CMD ["--help"]
